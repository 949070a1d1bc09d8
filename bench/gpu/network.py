"""The whole network: its mask in float16, and its time against the published form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.common.flops import in_proj_shape, network_flops
from bench.common.report import summary
from bench.gpu.clock import Work, copy_bandwidth, ratios, reason, take_turns
from bench.gpu.part import Part, relative_rms
from bsmamba2.config.file import load_config
from bsmamba2.config.model import ModelConfig
from bsmamba2.export.precision.gates import fixed_spectrum
from bsmamba2.models.bsmamba2 import BSMamba2
from bsmamba2.models.folded import fold
from bsmamba2.models.graphed import CudaCapture, Function, GraphedNetwork
from bsmamba2.models.kernels import uses_mamba_ssm

BATCHES = (1, 4)
_SEED = 0


def model_of(part: Part) -> ModelConfig:
    """The published network's; a rehearsal has a tiny one."""
    if not part.job.rehearsal:
        return load_config("bsmamba2").model
    tiny = load_config("tiny").model
    return replace(tiny, network=replace(tiny.network, layers=1))


def new_network(part: Part, model: ModelConfig) -> BSMamba2:
    """Random weights, the same each time."""
    torch.manual_seed(_SEED)
    return BSMamba2(model).eval().to(part.device)


def spectrum_of(part: Part, model: ModelConfig, frames: int, batch: int = 1) -> Tensor:
    """The fixed spectrum, (batch, channels, frames, bins, 2)."""
    one = torch.from_numpy(fixed_spectrum(model.audio, frames))
    return one.repeat(batch, 1, 1, 1, 1).to(part.device)


class CaptureFailed(Exception):  # noqa: N818  (GraphedNetwork takes a RuntimeError in its stride)
    """There is no graph, so there is no time of one."""


def graphed(part: Part, network: nn.Module) -> GraphedNetwork:
    """As the engine has it, but never eager; a CPU has no graphs, and rehearses without one."""
    cuda_capture = CudaCapture()

    def capture(network: Function, x: Tensor) -> Function:
        if part.device.type != "cuda":
            return network
        try:
            return cuda_capture(network, x)
        except RuntimeError as error:
            raise CaptureFailed(reason(error)) from error

    return GraphedNetwork(network, capture=capture)


def autocast(part: Part, network: nn.Module) -> Function:
    """The published network as one runs it in eager PyTorch."""

    def run(x: Tensor) -> Tensor:
        with torch.autocast(part.device.type, torch.float16):
            return network(x)

    return run


def mask(part: Part) -> None:
    """Distance of masks from those of the network in float64, on the fixed spectrum."""
    model = model_of(part)
    network = new_network(part, model)
    exact = fold(new_network(part, model).double())
    candidates: dict[str, Function] = {
        "folded float32": fold(network),
        "folded float16": fold(network, torch.float16),
        "folded float16, graph": graphed(part, fold(network, torch.float16)),
        "folded bfloat16": fold(network, torch.bfloat16),
        "published, float16 autocast": autocast(part, network),
    }
    rows: list[dict[str, Any]] = []
    part.values |= {"weights": "random", "reference": "folded, float64", "rows": rows}
    for frames in (3,) if part.job.rehearsal else (1, 63, model.audio.chunk_frames):
        spectrum = spectrum_of(part, model, frames)
        with torch.inference_mode():
            expected = exact(spectrum.double())
            for name, candidate in candidates.items():
                row: dict[str, Any] = {"frames": frames, "network": name}
                try:
                    found = candidate(spectrum)
                    rms = relative_rms(found, expected)
                    row["relative_rms"] = rms if math.isfinite(rms) else None
                    row["max"] = float((found - expected).abs().max())
                except Exception as error:
                    row["error"] = reason(error)
                rows.append(row)
                part.say(", ".join(f"{key} {value}" for key, value in row.items()))
                part.save()


def times(part: Part) -> None:
    """The folded network, eager and as a graph, against the published one."""
    model = model_of(part)
    with torch.inference_mode():
        frames = describe_chunk(part, model)
        network = new_network(part, model)
        half, full = fold(network, torch.float16), fold(network)
        candidates: dict[str, Function] = {
            "published, float16 autocast": autocast(part, network),
            "folded float16": half,
            "folded float16, graph": graphed(part, half),
            "folded float32, graph": graphed(part, full),
        }
        time_networks(part, candidates, model, BATCHES)
        part.values["kernels"] = _kernels(part, half, spectrum_of(part, model, frames))


def describe_chunk(part: Part, model: ModelConfig) -> int:
    """Saves what is timed, and its floor; returns the frames of a chunk."""
    frames = 3 if part.job.rehearsal else model.audio.chunk_frames
    part.values |= {
        "frames": frames,
        "chunk_s": model.audio.chunk_s,
        "published_scan": "mamba_ssm" if uses_mamba_ssm(part.device) else "chunked PyTorch",
        "floor": measure_floor(part, model, frames),
    }
    part.save()
    return frames


def time_networks(
    part: Part, candidates: dict[str, Function], model: ModelConfig, batches: Sequence[int]
) -> None:
    """Saves times of each batch as `rows`, in turns, after `describe_chunk`."""
    part.values["rows"] = rows = []
    for batch in batches:
        spectrum = spectrum_of(part, model, part.values["frames"], batch)
        rows.append({"batch": batch} | _time_batch(part, candidates, spectrum))
        part.save()


def _time_batch(part: Part, candidates: dict[str, Function], spectrum: Tensor) -> dict[str, Any]:
    works = {name: (lambda f=f: f(spectrum)) for name, f in candidates.items()}
    measured, failed = take_turns(part.clock, works, max(1, part.rounds // 2))
    base, batch = "published, float16 autocast", len(spectrum)
    figures = {
        name: {
            "ms_per_chunk": {key: ms / batch for key, ms in summary(values).items()},
            "times_real_time": part.values["chunk_s"] * 1e3 * batch / summary(values)["median"],
            "speedup": ratios(measured, name, base),
            "times_floor": summary(values)["median"] / batch / part.values["floor"]["ms"],
            "pass_memory_mib": _pass_memory_mib(part, name, works[name]),
        }
        for name, values in measured.items()
    }
    for name, row in figures.items():
        part.say(f"batch {batch}, {name}: {row['ms_per_chunk']['median']:.3f} ms a chunk")
    for name, why in failed.items():
        part.say(f"batch {batch}, {name} failed: {why}")
    return {"networks": figures, "failed": failed}


def _pass_memory_mib(part: Part, name: str, work: Work) -> float | None:
    """A graph's memory is its pool's, which is never given back, and a plan's is not PyTorch's."""
    if "graph" in name or name.startswith("plan"):
        return None
    return part.clock.pass_memory_mib(work)


def measure_floor(part: Part, model: ModelConfig, frames: int) -> dict[str, Any]:
    """Products at the rate of their own shapes, scans at that of a copy, nothing overlapping."""
    net = model.network
    tokens, d_model, outputs = in_proj_shape(model, frames)
    shapes = {"in_proj": (tokens, d_model, outputs), "output": (tokens, 2 * net.d_inner, d_model)}
    rates = {name: _gemm_tflop_s(part, *shape) for name, shape in shapes.items()}
    copy = copy_bandwidth(part.clock, 1 << 20 if part.job.rehearsal else 4 << 30)
    flops = network_flops(model, frames)
    scan_bytes = 2 * net.layers * 2 * tokens * (net.d_in_proj + net.d_inner) * 2
    rest = sum(flops[name] for name in ("band_split", "output", "masks"))
    parts_ms = {
        "in_proj": flops["in_proj"] / rates["in_proj"] / 1e9,
        "other products": rest / rates["output"] / 1e9,
        "scans": scan_bytes / copy["median"] / 1e6,
    }
    return {
        "tflop_s": rates,
        "copy_gb_s": copy,
        "parts_ms": parts_ms,
        "ms": sum(parts_ms.values()),
        "dtype": "float16",
    }


def _gemm_tflop_s(part: Part, m: int, k: int, n: int) -> float:
    a, b = (torch.randn(s, device=part.device).half() for s in ((m, k), (k, n)))
    measured, failed = take_turns(part.clock, {"gemm": lambda: a @ b}, part.rounds)
    if failed:
        raise RuntimeError(failed["gemm"])
    return 2e-9 * m * k * n / summary(measured["gemm"])["median"]


def _kernels(part: Part, network: nn.Module, spectrum: Tensor) -> list[dict[str, Any]] | str:
    """Where the time of one eager pass goes, by kernel, the longest first."""
    kind = "CUDA" if part.device.type == "cuda" else "CPU"
    try:
        from torch.profiler import ProfilerActivity, profile

        network(spectrum)
        with profile(activities=[getattr(ProfilerActivity, kind)]) as profiler:
            network(spectrum)
            part.clock.synchronize()
        events = profiler.key_averages()
        field = "self_device_time_total" if kind == "CUDA" else "self_cpu_time_total"
        found = [
            {"kernel": e.key[:160], "calls": e.count, "ms": getattr(e, field) / 1e3}
            for e in events
            if getattr(e, field) > 0
        ]
    except Exception as error:  # the profiler's library may be kept from the counters
        return reason(error)
    return sorted(found, key=lambda row: -row["ms"])[:20]
