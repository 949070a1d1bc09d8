"""From an exported ONNX file to a TensorRT plan and its sidecar, without torch and onnx.

Plans are built where they run, or with TensorRT-RTX anywhere. Types are the graph's, and TF32 is
off: no builder decides about precision.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
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
from bsmamba2.export.plan.options import PlanOptions, Range, frames_text
from bsmamba2.export.plan.timing_cache import timing_cache
from bsmamba2.formats.metadata import Metadata, parse_metadata
from bsmamba2.formats.onnx_file import read_onnx_file
from bsmamba2.formats.operator import NAME, PLUGIN_VERSION, SCAN_NODE
from bsmamba2.formats.trt_plan import PlanRecord, PluginRecord, sidecar_path, sidecar_text
from bsmamba2.plugins.build import build_libraries, find_or_build, load_build
from bsmamba2.plugins.tensorrt_library import check_plugin_layers, load_plugin, strongly_typed
from bsmamba2.system.atomic import atomic_paths, writing
from bsmamba2.system.files import existing_file, sha256_file
from bsmamba2.system.signals import stop_on_signals

_ACTUAL_SHAPE = "RUNTIME_ACTIVATION_RESIZE_10_10"
"""Preview feature with which a context's memory is that of its batch, not of the largest one."""


def build_plan(
    source: str | Path,
    target: str | Path,
    options: PlanOptions | None = None,
    *,
    report: Callable[[str], None] = lambda _: None,
) -> PlanRecord:
    """Builds `model.plan` and `model.plan.json`; both get their names, or neither.

    Args:
        source: An ONNX file of `bsm export`, or "default" for the one in the package.
        target: The `.plan` file to write.
        options: What can be chosen; None takes all defaults.
        report: Called with a sentence at each step, from whatever thread.

    Returns:
        What the sidecar says.

    Raises:
        BsmError: No such file, or a target that cannot be written.
        CheckpointError: The source is no ONNX file, or not of this tool.
        ExportError: The builder is absent, cannot build here or fails, or the source's graph is
            not that of its network.
        PluginError: The plugin cannot be built or loaded, or TensorRT does not take it.
    """
    target, options = Path(target), options or PlanOptions()
    if target.suffix != ".plan":
        raise ExportError(f"{target} must end in .plan.")
    origin = _read_source(source)
    with atomic_paths([target, sidecar_path(target)]) as (plan, sidecar):
        builder = choose_builder(options.builder)
        library = _plugin_library(options, report)
        work = _Work(origin=origin, builder=builder, options=options, library=library)
        serialized = work.build(report)
        with writing(target):
            plan.write_bytes(serialized)
        record = work.record(sha256_file(plan), target)
        with writing(sidecar_path(target)):
            sidecar.write_text(sidecar_text(record, origin.metadata), "utf-8")
    return record


@dataclass(frozen=True, kw_only=True)
class _Source:
    """An ONNX file of this tool."""

    name: str
    """As to be named in a command: "default", or the file's name."""
    path: Path
    metadata: Metadata
    scan_nodes: int


def _read_source(source: str | Path) -> _Source:
    """What the file says of itself.

    Raises:
        CheckpointError: It is damaged or of another tool.
        ExportError: It is for CPUs, or has not one scan node a block.
    """
    path = Path(source)
    if str(source) == "default":
        from bsmamba2.runtime.engines import default_engine_path

        path = default_engine_path()
    file = read_onnx_file(path)
    metadata = parse_metadata(file.metadata, path)
    if metadata.precision == "int8":
        raise ExportError(
            f"{path} is int8, which is for CPUs: build the plan of the float32 or float16 file."
        )
    nodes, blocks = file.node_counts.get(SCAN_NODE, 0), 2 * metadata.model.network.layers
    if nodes != blocks:
        raise ExportError(
            f"{path} has {nodes} nodes of {NAME} for {blocks} blocks: "
            "export it again with 'bsm export'."
        )
    name = "default" if str(source) == "default" else path.name
    return _Source(name=name, path=path, metadata=metadata, scan_nodes=nodes)


def _plugin_library(options: PlanOptions, report: Callable[[str], None]) -> Path:
    """The plugin's file, built where it is not there."""
    if options.plugin:
        return existing_file(options.plugin).resolve()
    if options.architectures:
        libraries = build_libraries(architectures=options.architectures, report=report)
    else:
        libraries = find_or_build(report=report)
    assert libraries.plugin is not None
    return libraries.plugin


@dataclass(frozen=True, kw_only=True)
class _Work:
    """A plan to build."""

    origin: _Source
    builder: PlanBuilder
    options: PlanOptions
    library: Path
    """The plugin's file."""

    def build(self, report: Callable[[str], None]) -> Any:
        """The serialised plan, an `IHostMemory`."""
        trt, log = self.builder.trt, BuilderLog()
        load_plugin(trt, self.library)
        trt_log = attach_log(trt, log)
        builder = self._start(trt_log, log)
        network = builder.create_network(strongly_typed(trt))
        parser = trt.OnnxParser(network, trt_log)  # owns the weights: must outlive the build
        if not parser.parse(self.origin.path.read_bytes()):
            said = _parser_error(parser) or log.last_error()
            raise ExportError(f"{self.builder} cannot parse {self.origin.path}: {said}.")
        check_plugin_layers(network, self.origin.scan_nodes)
        report(f"Parsed {self.origin.path}: {self.origin.scan_nodes} plugin layers.")
        config = builder.create_builder_config()
        self._configure(builder, network, config, log)
        start = time.monotonic()
        report(f"Building with {self.builder}: {self._shapes()}.")
        with stop_on_signals() as stop, timing_cache(self.builder, config):
            monitor = attach_progress(trt, report, lambda: not stop.signal)
            config.progress_monitor = monitor
            serialized = builder.build_serialized_network(network, config)
            if stop.signal:
                raise KeyboardInterrupt
            if serialized is None:
                raise ExportError(f"{self.builder} built no plan: {log.last_error()}.")
        log.check()
        report(f"Built in {time.monotonic() - start:.1f} s: {serialized.nbytes / 1e6:.1f} MB.")
        return serialized

    def _start(self, trt_log: Any, log: BuilderLog) -> Any:
        """TensorRT's own `Builder`, which needs a working CUDA."""
        try:
            return self.builder.trt.Builder(trt_log)
        except TypeError as error:  # of pybind, for a constructor that gives nothing
            raise ExportError(
                f"{self.builder} does not start ({log.last_error()}): update the NVIDIA driver."
            ) from error

    def _configure(self, builder: Any, network: Any, config: Any, log: BuilderLog) -> None:
        """Sizes, precision and plugin of the plan."""
        trt, profile = self.builder.trt, builder.create_optimization_profile()
        spectrum = network.get_input(0)
        _, channels, _, bins, parts = spectrum.shape
        sizes = zip(self.options.batch_range, self._frames(), strict=True)
        profile.set_shape(
            spectrum.name, *((batch, channels, frames, bins, parts) for batch, frames in sizes)
        )
        if config.add_optimization_profile(profile) < 0:
            said = log.last_error()
            raise ExportError(f"{self.builder} does not take {self._shapes()}: {said}.")
        config.clear_flag(trt.BuilderFlag.TF32)
        if feature := getattr(trt.PreviewFeature, _ACTUAL_SHAPE, None):
            config.set_preview_feature(feature, True)

    def _frames(self) -> Range:
        return self.options.frames_range(self.origin.metadata.model.audio)

    def _shapes(self) -> str:
        """For people: "1 to 4 chunks of 801 frames"."""
        most, frames = self.options.max_batch, frames_text(self._frames())
        return f"1 to {most} chunks of {frames} frames" if most > 1 else f"1 chunk of {frames}"

    def record(self, plan_sha256: str, target: Path) -> PlanRecord:
        """What the sidecar says of the plan."""
        origin, builder = self.origin, self.builder
        return PlanRecord(
            plan_sha256=plan_sha256,
            onnx=origin.path.name,
            onnx_sha256=sha256_file(origin.path),
            builder=builder.name,
            builder_version=str(builder.trt.__version__),
            architectures=builder.architectures,
            batch=self.options.batch_range,
            frames=self._frames(),
            plugin_layers=origin.scan_nodes,
            plugin=_plugin_record(self.library),
            command=self.options.command(origin.name, target.name, builder.name),
        )


def _plugin_record(library: Path) -> PluginRecord:
    """The library, and the sources that it was built of where its folder tells."""
    digest = sha256_file(library)
    build = load_build(library.parent)
    known = build is not None and build.sha256.get(library.name) == digest
    return PluginRecord(
        version=PLUGIN_VERSION,
        sources_sha256=build.sources if build is not None and known else "",
        library_sha256=digest,
    )


def _parser_error(parser: Any) -> str:
    """The first error, with its node; "" where there is none."""
    if not parser.num_errors:
        return ""
    error = parser.get_error(0)
    text = " ".join(error.desc().split()).rstrip(".")
    return f"{error.node_operator()} {error.node_name()}: {text}".strip()
