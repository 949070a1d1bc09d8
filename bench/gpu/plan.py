"""TensorRT plans: how long they take to build, how large they are, how fast, a song through one."""

from __future__ import annotations

import importlib.util
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.gpu.clock import reason
from bench.gpu.network import (
    autocast,
    describe_chunk,
    graphed,
    model_of,
    new_network,
    spectrum_of,
    time_networks,
)
from bench.gpu.part import Part, Skipped, relative_rms
from bench.gpu.song import separate_song
from bsmamba2.config.model import ModelConfig
from bsmamba2.formats.metadata import Metadata, Provenance, parse_metadata
from bsmamba2.formats.onnx_file import read_onnx_file
from bsmamba2.formats.trt_plan import BUILDERS
from bsmamba2.models.folded import fold
from bsmamba2.models.graphed import Function

BATCHES = (1, 2, 4)


@dataclass(frozen=True, kw_only=True)
class Source:
    """An ONNX file to build a plan of."""

    path: Path
    metadata: Metadata
    same_weights: bool
    """Whether its weights are those of `new_network`."""


def plan(part: Part) -> None:
    """Builds a plan of each source, and times them beside the folded and the published network.

    Raises:
        Skipped: What it takes is not installed here.
        RuntimeError: No plan was built, or none runs here.
    """
    _check_installed(part)
    with tempfile.TemporaryDirectory() as folder:
        sources = _sources(part, Path(folder))
        model = sources[0].metadata.model
        part.values |= {"weights": "random" if sources[0].same_weights else "of the file"}
        plans: list[dict[str, Any]] = []
        part.values["plans"] = plans
        engines: dict[str, Any] = {}
        for number, source in enumerate(sources):
            plans.append({"source": source.path.name, "precision": source.metadata.precision})
            engine = _build(part, source, Path(folder) / f"{number}.plan", plans[-1])
            if engine is not None:
                engines[f"plan, {source.metadata.precision}"] = engine
            part.save()
        if not engines:
            raise RuntimeError(plans[-1]["error"])
        with torch.inference_mode():
            _times(part, model, engines, same_weights=sources[0].same_weights)
        part.values["songs"] = songs = []
        for name, engine in engines.items():
            if not isinstance(engine, StandIn):
                songs.append({"plan": name} | separate_song(part, engine))
                part.save()


def _check_installed(part: Part) -> None:
    """Raises Skipped where a plan cannot be built, or not run."""
    if not any(map(importlib.util.find_spec, BUILDERS.values())):
        raise Skipped("neither tensorrt nor tensorrt_rtx is installed here")
    if part.job.rehearsal:
        if not part.job.plugin:
            raise Skipped("a rehearsal compiles nothing: name the plugin's library with --plugin")
    elif importlib.util.find_spec("cupy") is None:
        raise Skipped("CuPy is not installed here")


def _sources(part: Part, folder: Path) -> list[Source]:
    """The files that were named, else the published network's, else the one in the package."""
    named = [Path(path) for path in part.job.onnx]
    if not named and all(map(importlib.util.find_spec, ("onnx", "onnxscript"))):
        return _export(part, folder)
    if not named:
        from bsmamba2.runtime.engines import default_engine_path

        named = [default_engine_path()]
        part.say("no onnx to export the published network, and no --onnx: the embedded engine")
    sources = [Source(path=path, metadata=_metadata(path), same_weights=False) for path in named]
    if any(source.metadata.model != sources[0].metadata.model for source in sources):
        raise RuntimeError("the ONNX files are of different networks")
    return sources


def _metadata(path: Path) -> Metadata:
    return parse_metadata(read_onnx_file(path).metadata, path)


def _export(part: Part, folder: Path) -> list[Source]:
    """The published network with the weights of the other parts, in the types of plans."""
    import onnx

    from bsmamba2.export.onnx.graph import export_graph

    model = model_of(part)
    provenance = Provenance(source="random weights", licence="none", trained=False)
    metadata = Metadata(model=model, provenance=provenance)
    network = new_network(part, model).cpu()
    sources = []
    for dtype in (torch.float16, torch.float32):
        path = folder / f"{str(dtype).removeprefix('torch.')}.onnx"
        part.say(f"exporting {path.name}")
        onnx.save_model(export_graph(fold(network, dtype), metadata), path)
        sources.append(Source(path=path, metadata=_metadata(path), same_weights=True))
    return sources


def _build(part: Part, source: Source, path: Path, figures: dict[str, Any]) -> Any:
    """Builds and loads a plan; None, with the reason in its figures, where that fails."""
    from bsmamba2.export.plan.build import build_plan
    from bsmamba2.export.plan.options import PlanOptions
    from bsmamba2.runtime import load_engine

    plugin = Path(part.job.plugin) if part.job.plugin else None
    options = PlanOptions(max_batch=BATCHES[-1], plugin=plugin)
    try:
        start_s = time.perf_counter()
        record = build_plan(source.path, path, options, report=part.say)
        figures |= {
            "builder": f"{record.builder} {record.builder_version}",
            "seconds": time.perf_counter() - start_s,
            "mib": path.stat().st_size / 2**20,
            "onnx_mib": source.path.stat().st_size / 2**20,
            "plugin_layers": record.plugin_layers,
            "batch": record.batch,
            "frames": record.frames,
        }
        start_s = time.perf_counter()
        engine = load_engine(path)
        figures["load_s"] = time.perf_counter() - start_s
    except Exception as error:  # what builds may not run here: others go on
        figures["error"] = reason(error)
        part.say(figures["error"])
        is_built = "mib" in figures
        return StandIn(part, source.metadata.model) if part.job.rehearsal and is_built else None
    return engine


class StandIn:
    """What a rehearsal times in place of a plan, which no CPU runs: the folded network."""

    def __init__(self, part: Part, model: ModelConfig) -> None:
        self.network = fold(new_network(part, model))


def _times(part: Part, model: ModelConfig, engines: dict[str, Any], *, same_weights: bool) -> None:
    frames = describe_chunk(part, model)
    network = new_network(part, model)
    candidates: dict[str, Function] = {
        "published, float16 autocast": autocast(part, network),
        "folded float16, graph": graphed(part, fold(network, torch.float16)),
        **{
            name: engine.network if isinstance(engine, StandIn) else Replay(engine, part.device)
            for name, engine in engines.items()
        },
    }
    if same_weights:
        part.values["relative_rms_to_folded_float32"] = dict(
            _distances(part, fold(network), candidates, spectrum_of(part, model, frames))
        )
        part.save()
    time_networks(part, candidates, model, BATCHES)


def _distances(
    part: Part, exact: Function, candidates: dict[str, Function], spectrum: Tensor
) -> Iterator[tuple[str, float | str | None]]:
    """How far each mask is from float32's."""
    expected = exact(spectrum)
    for name, candidate in candidates.items():
        try:
            distance = relative_rms(candidate(spectrum), expected)
        except Exception as error:
            yield name, reason(error)
        else:
            part.say(f"{name}: {distance:.1e}")
            yield name, distance if math.isfinite(distance) else None


class Replay:
    """A plan as a function of a tensor on its device, in PyTorch's order of streams.

    One shape's memory is kept at a time. As for a graph of PyTorch, input and output are copied.
    """

    def __init__(self, engine: Any, device: torch.device) -> None:
        """Takes a `PlanEngine`."""
        self._engine, self._device = engine, device
        self._network: Any = None
        self._buffers: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The mask of a spectrum, (batch, channels, frames, bins, 2)."""
        if self._buffers is None or self._buffers[0].shape != x.shape:
            self._network = self._buffers = None  # frees its memory first
            self._network = self._engine.network(x.shape[0], x.shape[2])
            arrays = (self._network.spectrum, self._network.mask)
            self._buffers = torch.from_dlpack(arrays[0]), torch.from_dlpack(arrays[1])
        if self._device.type != "cuda":
            return self._run(x, self._buffers)
        stream = torch.cuda.ExternalStream(self._network.stream.ptr, self._device)
        current = torch.cuda.current_stream(self._device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            mask = self._run(x, self._buffers)
        current.wait_stream(stream)
        mask.record_stream(current)
        return mask

    def _run(self, x: Tensor, buffers: tuple[Tensor, Tensor]) -> Tensor:
        spectrum, mask = buffers
        spectrum.copy_(x)
        self._network.enqueue()
        return mask.clone()
