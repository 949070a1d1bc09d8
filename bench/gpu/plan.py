"""TensorRT plans: their build time, size and speed, and a song through each."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from bench.gpu.clock import reason
from bench.gpu.network import (
    PUBLISHED,
    autocast,
    chunk_frames,
    distances,
    graphed,
    new_network,
    spectrum_of,
    time_networks,
)
from bench.gpu.part import Part, Skipped
from bench.gpu.report import text
from bench.gpu.song import random_metadata, separate_song
from bsmamba2.formats.trt_plan import BUILDERS
from bsmamba2.models.folded import fold
from bsmamba2.models.graphed import Function

BATCHES = (1, 2, 4)
PRECISIONS = (torch.float16, torch.float32)


def plan(part: Part) -> None:
    """Builds plans of the full-size network, and times them beside the network in PyTorch.

    Raises:
        Skipped: Something that this needs is not installed here.
        RuntimeError: No plan was built, or none runs here.
    """
    _check_installed(part)
    from bsmamba2.export.plan.builder import choose_builder

    part.values["smoke"] = smoke(choose_builder().trt, on_gpu=not part.job.rehearsal)
    part.say(f"two layers: {text(part.values['smoke'])}")
    part.save()
    part.values["plans"] = plans = []
    engines: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in PRECISIONS:
            name = f"plan, {str(dtype).removeprefix('torch.')}"
            plans.append({"plan": name})
            try:
                engines[name] = _build(part, dtype, Path(folder), plans[-1])
            except Exception as error:  # what was built may not run here: go on
                plans[-1]["error"] = reason(error)
                part.say(plans[-1]["error"])
            part.save()
    if part.job.rehearsal:  # no CPU runs a plan: the folded network stands in for those built
        built = [row["plan"] for row in plans if "mib" in row]
        candidates: dict[str, Function] = dict.fromkeys(built, fold(new_network(part)))
    else:
        candidates = {name: Replay(engine, part.device) for name, engine in engines.items()}
    if not candidates:
        raise RuntimeError(plans[-1]["error"])
    _times(part, candidates)
    part.values["songs"] = songs = []
    for name, engine in engines.items():
        songs.append({"plan": name} | separate_song(part, engine))
        part.save()


def _check_installed(part: Part) -> None:
    """Raises Skipped if a plan cannot be built or run here."""
    if not any(map(importlib.util.find_spec, BUILDERS.values())):
        raise Skipped("neither tensorrt nor tensorrt_rtx is installed here")
    if part.job.rehearsal and not part.job.plugin:
        raise Skipped("a rehearsal compiles nothing: name the plugin's library with --plugin")
    needed = ("onnx", "onnxscript") if part.job.rehearsal else ("onnx", "onnxscript", "cupy")
    if absent := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise Skipped(f"{' and '.join(absent)}: not installed here")


def smoke(trt: ModuleType, *, on_gpu: bool) -> dict[str, Any]:
    """Builds and runs two layers without a plugin, to see whether TensorRT supports this GPU.

    Raises:
        RuntimeError: A step fails, or the result is wrong.
    """
    from onnx import TensorProto, helper, numpy_helper

    from bsmamba2.plugins.tensorrt_library import strongly_typed

    random = np.random.default_rng(0)
    weight = (random.normal(size=(256, 512)) / 16).astype(np.float16)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])],
        "smoke",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [64, 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [64, 512])],
        [numpy_helper.from_array(weight, "w")],
    )
    opset = helper.make_opsetid("", 20)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()
    log = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(log)
    network = builder.create_network(strongly_typed(trt))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        raise RuntimeError(f"{trt.__name__} cannot parse two layers: {parser.get_error(0)}")
    start_s = time.perf_counter()
    serialized = builder.build_serialized_network(network, builder.create_builder_config())
    if serialized is None:
        raise RuntimeError(f"{trt.__name__} cannot build a plan of two layers")
    figures = {"version": trt.__version__, "build_s": time.perf_counter() - start_s}
    if on_gpu:
        engine = trt.Runtime(log).deserialize_cuda_engine(serialized)
        if engine is None:
            raise RuntimeError(f"{trt.__name__} cannot load its own plan here")
        start_s = time.perf_counter()
        context = engine.create_execution_context()
        x = torch.randn(64, 256, device="cuda").half()
        y = torch.full((64, 512), torch.nan, device="cuda").half()
        torch.cuda.synchronize()
        context.set_tensor_address("x", x.data_ptr())
        context.set_tensor_address("y", y.data_ptr())
        if not context.execute_async_v3(torch.cuda.Stream().cuda_stream):
            raise RuntimeError(f"{trt.__name__} cannot run two layers here")
        torch.cuda.synchronize()
        expected = (x.double() @ torch.from_numpy(weight).cuda().double()).relu()
        figures |= {
            "first_run_s": time.perf_counter() - start_s,
            "max_error": float((y - expected).abs().max()),
        }
        if not figures["max_error"] < 0.05:
            raise RuntimeError(f"{trt.__name__} computes two layers wrongly: {figures}")
    return figures


def _build(part: Part, dtype: torch.dtype, folder: Path, figures: dict[str, Any]) -> Any:
    """Exports the network with the other parts' random weights; builds and loads its plan."""
    import onnx

    from bsmamba2.export.onnx.graph import export_graph
    from bsmamba2.export.plan.options import PlanOptions
    from bsmamba2.export.to_plan import export_plan
    from bsmamba2.runtime import load_engine

    part.say(f"exporting {figures['plan']}")
    source, target = folder / f"{figures['plan']}.onnx", folder / f"{figures['plan']}.plan"
    onnx.save_model(
        export_graph(fold(new_network(part).cpu(), dtype), random_metadata(part)), source
    )
    plugin = Path(part.job.plugin) if part.job.plugin else None
    start_s = time.perf_counter()
    options = PlanOptions(batch=BATCHES[-1], plugin=plugin)
    record = export_plan(source, target, options, report=part.say)
    figures |= {
        "builder": f"{record.builder} {record.builder_version}",
        "build_s": time.perf_counter() - start_s,
        "mib": target.stat().st_size / 2**20,
        "onnx_mib": source.stat().st_size / 2**20,
        "plugin_layers": record.plugin_layers,
    }
    start_s = time.perf_counter()
    engine = load_engine(target)
    figures["load_s"] = time.perf_counter() - start_s
    return engine


def _times(part: Part, plans: dict[str, Function]) -> None:
    """Records the masks' distances from folded float32, then the times."""
    network = new_network(part)
    candidates: dict[str, Function] = {
        PUBLISHED: autocast(part, network),
        "folded float16, graph": graphed(part, fold(network, torch.float16)),
        **plans,
    }
    with torch.inference_mode():
        spectrum = spectrum_of(part, chunk_frames(part))
        part.values["masks"] = masks = []
        for row in distances(candidates, spectrum, fold(network)(spectrum)):
            masks.append(row)
            part.say(text(row))
            part.save()
    time_networks(part, candidates, BATCHES)


class Replay:
    """A plan as a function of a tensor on its device, in order with PyTorch's current stream.

    Memory is kept for one shape at a time. Input and output are copied, as for PyTorch's graphs.
    """

    def __init__(self, engine: Any, device: torch.device) -> None:
        """Wraps a `PlanEngine`."""
        self._engine, self._device = engine, device
        self._network: Any = None
        self._buffers: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Returns the mask of a spectrum, (batch, channels, frames, bins, 2)."""
        if self._buffers is None or self._buffers[0].shape != x.shape:
            self._network = self._buffers = None  # frees its memory first
            self._network = self._engine.network(x.shape[0], x.shape[2])
            arrays = (self._network.spectrum, self._network.mask)
            self._buffers = from_dlpack(arrays[0]), from_dlpack(arrays[1])
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
