"""The whole network: its mask in float16, and the time of its folded form."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.common.flops import in_proj_shape, network_flops
from bench.common.report import summary
from bench.gpu.clock import copy_gb_s, longest_kernels, median_ms, ratios, reason, take_turns
from bench.gpu.part import Part, relative_rms
from bench.gpu.report import text
from bench.gpu.scan import make_case
from bsmamba2.config.file import load_config
from bsmamba2.config.model import ModelConfig
from bsmamba2.export.precision.gates import fixed_spectrum
from bsmamba2.models.bsmamba2 import BSMamba2
from bsmamba2.models.cuda_scan import library_scan
from bsmamba2.models.folded import fold
from bsmamba2.models.graphed import CudaCapture, Function
from bsmamba2.models.kernels import uses_mamba_ssm
from bsmamba2.plugins.cuda_library import ScanLibrary

BATCHES = (1, 4)
PUBLISHED = "published, float16 autocast"
_SEED = 0


def model_of(part: Part) -> ModelConfig:
    """Returns the configuration of the full-size network or, in a rehearsal, of a tiny one."""
    if not part.job.rehearsal:
        return load_config("bsmamba2").model
    tiny = load_config("tiny").model
    return replace(tiny, network=replace(tiny.network, layers=1))


def new_network(part: Part) -> BSMamba2:
    """Makes a network with random weights, the same each time."""
    torch.manual_seed(_SEED)
    return BSMamba2(model_of(part)).eval().to(part.device)


def spectrum_of(part: Part, frames: int, batch: int = 1) -> Tensor:
    """Returns the fixed spectrum, (batch, channels, frames, bins, 2)."""
    one = torch.from_numpy(fixed_spectrum(model_of(part).audio, frames))
    return one.repeat(batch, 1, 1, 1, 1).to(part.device)


def chunk_frames(part: Part) -> int:
    """Returns the frames of the spectrum that is timed: those of a chunk."""
    return 3 if part.job.rehearsal else model_of(part).audio.chunk_frames


def graphed(part: Part, network: nn.Module) -> Function:
    """Makes the network a CUDA graph for each shape, never eager; on a CPU, returns it as it is."""
    if part.device.type == "cpu":
        return network
    capture = CudaCapture()
    replays: dict[torch.Size, Function] = {}

    def replay(x: Tensor) -> Tensor:
        if x.shape not in replays:
            replays[x.shape] = capture(network, x)
        return replays[x.shape](x)

    return replay


def autocast(part: Part, network: nn.Module) -> Function:
    """Returns the network as published: unfolded, in eager PyTorch with float16 autocast."""

    def run(x: Tensor) -> Tensor:
        with torch.autocast(part.device.type, torch.float16):
            return network(x)

    return run


def kernels(part: Part) -> None:
    """Records the longest kernels of a float16 scan of each path, and of an eager pass."""
    library = ScanLibrary(part.job.library)
    for path, (N, L) in part.paths.items():
        case = make_case(part.device, N, L, part.sizes, torch.float16)
        scan = functools.partial(library_scan, library, *case.arguments, **case.attributes)
        rows = longest_kernels(part.device, scan)
        for row in rows[:4]:
            part.say(f"{path}: {text(row)}")
        if any("normalise" in row["kernel"] for row in rows):
            part.say(f"{path}: CLUSTERS ARE NOT USED: check fits_cluster")
        part.values[path] = rows
        part.save()
    with torch.inference_mode():
        half = fold(new_network(part), torch.float16)
        work = functools.partial(half, spectrum_of(part, chunk_frames(part)))
        part.values["network"] = longest_kernels(part.device, work)


def mask(part: Part) -> None:
    """Records the distance of masks from the network's in float64, on the fixed spectrum."""
    network = new_network(part)
    exact = fold(new_network(part).double())
    candidates: dict[str, Function] = {
        "folded float32": fold(network),
        "folded float16": fold(network, torch.float16),
        "folded float16, graph": graphed(part, fold(network, torch.float16)),
        "folded bfloat16": fold(network, torch.bfloat16),
        PUBLISHED: autocast(part, network),
    }
    part.values["rows"] = rows = []
    for frames in (3,) if part.job.rehearsal else (1, 63, chunk_frames(part)):
        spectrum = spectrum_of(part, frames)
        with torch.inference_mode():
            expected = exact(spectrum.double())
            for row in distances(candidates, spectrum, expected):
                rows.append({"frames": frames} | row)
                part.say(text(rows[-1]))
                part.save()


def distances(
    candidates: dict[str, Function], spectrum: Tensor, expected: Tensor
) -> Iterator[dict[str, Any]]:
    """Yields the distance of each candidate's mask from the expected one."""
    for name, candidate in candidates.items():
        row: dict[str, Any] = {"network": name}
        try:
            row["relative_rms"] = relative_rms(candidate(spectrum), expected)
        except Exception as error:
            row["error"] = reason(error)
        yield row


def times(part: Part) -> None:
    """Times the folded network, eager and as a graph, against the network as published."""
    network = new_network(part)
    half = fold(network, torch.float16)
    candidates: dict[str, Function] = {
        PUBLISHED: autocast(part, network),
        "folded float16": half,
        "folded float16, graph": graphed(part, half),
        "folded bfloat16, graph": graphed(part, fold(network, torch.bfloat16)),
        "folded float32, graph": graphed(part, fold(network)),
    }
    time_networks(part, candidates, BATCHES)


def time_networks(part: Part, candidates: dict[str, Function], batches: Sequence[int]) -> None:
    """Saves the floor, and the times for each batch as `rows`, measured in turns."""
    floor = _floor_ms(part)
    part.values |= {
        "chunk_s": model_of(part).audio.chunk_s,
        "published_scan": "mamba_ssm" if uses_mamba_ssm(part.device) else "chunked PyTorch",
        "floor_ms": floor,
        "rows": (rows := []),
    }
    part.save()
    for batch in batches:
        spectrum = spectrum_of(part, chunk_frames(part), batch)
        works = {name: functools.partial(f, spectrum) for name, f in candidates.items()}
        with torch.inference_mode():
            measured, failed = take_turns(part.device, works, max(1, part.rounds // 2))
        for name, values in measured.items():
            ms = summary(value / batch for value in values)
            row = {
                "batch": batch,
                "network": name,
                "ms_per_chunk": ms,
                "times_real_time": part.values["chunk_s"] * 1e3 / ms["median"],
                "speedup": ratios(measured, name, PUBLISHED),
                "times_floor": ms["median"] / floor["sum"],
            }
            rows.append(row)
        rows += [{"batch": batch, "network": n, "error": why} for n, why in failed.items()]
        part.say(f"batch {batch} done")
        part.save()


def _floor_ms(part: Part) -> dict[str, float]:
    """Returns least times: products at their shapes' rate, scans at that of a copy, no overlap."""
    model, frames = model_of(part), chunk_frames(part)
    net = model.network
    tokens, d_model, outputs = in_proj_shape(model, frames)
    flops = network_flops(model, frames)
    scan_bytes = 2 * net.layers * 2 * tokens * (net.d_in_proj + net.d_inner) * 2
    rest = sum(flops[name] for name in ("band_split", "output", "masks"))
    parts_ms = {
        "in_proj": flops["in_proj"] / _flop_per_ms(part, tokens, d_model, outputs),
        "other products": rest / _flop_per_ms(part, tokens, 2 * net.d_inner, d_model),
        "scans": scan_bytes / copy_gb_s(part.device) / 1e6,
    }
    return parts_ms | {"sum": sum(parts_ms.values())}


def _flop_per_ms(part: Part, m: int, k: int, n: int) -> float:
    a, b = (torch.randn(s, device=part.device).half() for s in ((m, k), (k, n)))
    return 2 * m * k * n / median_ms(part.device, lambda: a @ b, part.rounds)
