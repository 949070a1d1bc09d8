"""Builds a TensorRT plan and its sidecar from an exported ONNX file, without torch and onnx.

TensorRT builds a plan on the machine that will run it, TensorRT-RTX anywhere. Types are those of
the graph and TF32 is off: the builder chooses no precision.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bsmamba2.errors import ExportError
from bsmamba2.export.plan.builder import (
    BuilderLog,
    PlanBuilder,
    attach_log,
    attach_progress,
    choose_builder,
)
from bsmamba2.export.plan.options import PlanOptions, Range, read_frames
from bsmamba2.formats.metadata import Metadata, parse_metadata
from bsmamba2.formats.onnx_file import read_onnx_file
from bsmamba2.formats.operator import NAME, PLUGIN_VERSION
from bsmamba2.formats.trt_plan import PlanRecord, PluginRecord, sidecar_path, sidecar_text
from bsmamba2.plugins.build import build_libraries, find_or_build, load_build
from bsmamba2.plugins.tensorrt_library import check_plugin_layers, load_plugin, strongly_typed
from bsmamba2.runtime.engines import default_engine_path
from bsmamba2.system.atomic import atomic_paths, writing
from bsmamba2.system.files import existing_file, sha256_file
from bsmamba2.system.signals import stop_on_signals

_ACTUAL_SHAPE = "RUNTIME_ACTIVATION_RESIZE_10_10"
"""Preview feature: a context allocates memory for its actual batch, not for the largest one."""


def export_plan(
    source: str | Path,
    target: str | Path,
    options: PlanOptions | None = None,
    *,
    report: Callable[[str], None] = lambda _: None,
) -> PlanRecord:
    """Builds `model.plan` and `model.plan.json`; both get their names, or neither.

    Args:
        source: An ONNX file of `bsm export`, or "default" for the embedded engine.
        target: The `.plan` file to write.
        options: Options of the plan; None takes all defaults.
        report: Called with a sentence at each step, from any thread.

    Returns:
        The record in the sidecar.

    Raises:
        BsmError: The source does not exist, or the target cannot be written.
        CheckpointError: The source is not an ONNX file that this tool has exported.
        ExportError: The builder is missing, cannot build here or fails, or the source's graph is
            not that of its network.
        PluginError: The plugin cannot be built or loaded, or TensorRT does not use it.
    """
    target, options = Path(target), options or PlanOptions()
    if target.suffix != ".plan":
        raise ExportError(f"{target} must end in .plan.")
    onnx = default_engine_path() if str(source) == "default" else Path(source)
    metadata = _read_source(onnx)
    scan_nodes = 2 * metadata.model.network.layers
    frames = options.frames or str(metadata.model.audio.chunk_frames)
    with atomic_paths([target, sidecar_path(target)]) as (plan, sidecar):
        builder = choose_builder(options.builder)
        plugin = _plugin_library(options, report)
        load_plugin(builder.trt, plugin)
        serialized = _build(builder, onnx, scan_nodes, options.batch_range, frames, report)
        with writing(target):
            plan.write_bytes(serialized)
        record = PlanRecord(
            plan_sha256=sha256_file(plan),
            onnx=onnx.name,
            onnx_sha256=sha256_file(onnx),
            builder=builder.name,
            builder_version=str(builder.trt.__version__),
            architectures=builder.architectures,
            batch=options.batch_range,
            frames=read_frames(frames),
            plugin_layers=scan_nodes,
            plugin=_plugin_record(plugin),
            command=options.command(
                "default" if str(source) == "default" else onnx.name, target.name, builder.name
            ),
        )
        with writing(sidecar_path(target)):
            sidecar.write_text(sidecar_text(record, metadata), "utf-8")
    return record


def _read_source(path: Path) -> Metadata:
    """Returns the metadata of a file that a plan can be built from.

    Raises:
        CheckpointError: The file is damaged, or was written by another tool.
        ExportError: The file is for CPUs, or does not have one scan node per block.
    """
    file = read_onnx_file(path)
    metadata = parse_metadata(file.metadata, path)
    if metadata.precision == "int8":
        raise ExportError(
            f"{path} is int8, which is for CPUs: build the plan from the float32 or float16 file."
        )
    nodes, blocks = file.scan_nodes, 2 * metadata.model.network.layers
    if not nodes and file.inlined_scans == blocks:
        raise ExportError(
            f"Another tool has inlined the {NAME} nodes of {path}, which the plugin replaces: "
            "build the plan from the file that 'bsm export' wrote."
        )
    if nodes != blocks:
        raise ExportError(
            f"{path} has {nodes} {NAME} nodes for {blocks} blocks: "
            "export it again with 'bsm export'."
        )
    return metadata


def _plugin_library(options: PlanOptions, report: Callable[[str], None]) -> Path:
    """Returns the plugin's library, built if necessary."""
    if options.plugin:
        return existing_file(options.plugin).resolve()
    if options.arch:
        libraries = build_libraries(architectures=options.arch, report=report)
    else:
        libraries = find_or_build(report=report)
    assert libraries.plugin is not None
    return libraries.plugin


def _plugin_record(library: Path) -> PluginRecord:
    """Returns digests of the library and, if its folder records them, of its sources."""
    digest = sha256_file(library)
    build = load_build(library.parent)
    known = build is not None and build.sha256.get(library.name) == digest
    return PluginRecord(
        version=PLUGIN_VERSION,
        sources_sha256=build.sources if build is not None and known else "",
        library_sha256=digest,
    )


def _build(
    builder: PlanBuilder,
    path: Path,
    scan_nodes: int,
    batch: Range,
    frames: str,
    report: Callable[[str], None],
) -> Any:
    """Returns the serialised plan, an `IHostMemory`; the plugin must be registered."""
    trt, log = builder.trt, BuilderLog()
    trt_log = attach_log(trt, log)
    trt_builder = _start(builder, trt_log, log)
    network = trt_builder.create_network(strongly_typed(trt))
    parser = trt.OnnxParser(network, trt_log)  # owns the weights: must outlive the build
    if not parser.parse(path.read_bytes()):
        raise ExportError(
            f"{builder} cannot parse {path}: {_parser_error(parser) or log.last_error()}."
        )
    check_plugin_layers(network, scan_nodes)
    report(f"Parsed {path}: {scan_nodes} plugin layers.")
    shapes = f"batches up to {batch[-1]}, chunks of {frames} frames"
    config = trt_builder.create_builder_config()
    profile = _profile(trt_builder, network.get_input(0), batch, read_frames(frames))
    if config.add_optimization_profile(profile) < 0:
        raise ExportError(f"{builder} refuses {shapes}: {log.last_error()}.")
    config.clear_flag(trt.BuilderFlag.TF32)
    if feature := getattr(trt.PreviewFeature, _ACTUAL_SHAPE, None):
        config.set_preview_feature(feature, True)
    start = time.monotonic()
    report(f"Building with {builder}: {shapes}.")
    with stop_on_signals() as stop:
        monitor = attach_progress(trt, report, lambda: not stop.signal)
        config.progress_monitor = monitor
        serialized = trt_builder.build_serialized_network(network, config)
        if stop.signal:
            raise KeyboardInterrupt
    if serialized is None:
        raise ExportError(f"{builder} built no plan: {log.last_error()}.")
    log.warn_of_errors()
    report(f"Built in {time.monotonic() - start:.1f} s: {serialized.nbytes / 1e6:.1f} MB.")
    return serialized


def _profile(trt_builder: Any, spectrum: Any, batch: Range, frames: Range) -> Any:
    """Returns an `IOptimizationProfile` with the ranges of chunks and frames."""
    profile = trt_builder.create_optimization_profile()
    _, channels, _, bins, parts = spectrum.shape
    sizes = [(n, channels, length, bins, parts) for n, length in zip(batch, frames, strict=True)]
    profile.set_shape(spectrum.name, *sizes)
    return profile


def _start(builder: PlanBuilder, trt_log: Any, log: BuilderLog) -> Any:
    """Creates TensorRT's `Builder`, which needs a working CUDA."""
    try:
        return builder.trt.Builder(trt_log)
    except TypeError as error:  # from pybind, when the constructor returns nothing
        raise ExportError(
            f"{builder} does not start ({log.last_error()}): update the NVIDIA driver."
        ) from error


def _parser_error(parser: Any) -> str:
    """Returns the first error, with its node; "" if there is none."""
    if not parser.num_errors:
        return ""
    error = parser.get_error(0)
    text = " ".join(error.desc().split()).rstrip(".")
    return f"{error.node_operator()} {error.node_name()}: {text}".strip()
