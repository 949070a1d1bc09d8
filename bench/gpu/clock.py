"""Timing for the parts of `measure.py`, on a GPU or, in a rehearsal, on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from bench.common.report import summary

Work = Callable[[], object]

_WARM_UP_S = 0.3  # for clocks to rise, Triton to tune, and libraries to choose their kernels
_TURN_MS = 30.0  # how long one candidate runs in a round
_MAX_REPEATS = 200


def take_turns(
    device: torch.device, candidates: Mapping[str, Work], rounds: int
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Times candidates in turn, A B C A B C, so that a disturbance affects all of them.

    Args:
        device: The device that they compute on.
        candidates: Name -> a function that computes it once.
        rounds: Rounds after the warm-up.

    Returns:
        Name -> milliseconds of each round; name -> reason for those that failed.
    """
    times: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    repeats = {}
    for name, work in candidates.items():
        try:
            repeats[name] = _warm_up(device, work)
        except Exception as error:  # out of memory, a kernel that does not compile: go on
            failed[name] = reason(error)
        else:
            times[name] = []
    for _ in range(rounds):
        for name, count in repeats.items():
            times[name].append(_time_ms(device, candidates[name], count))
    return times, failed


def median_ms(device: torch.device, work: Work, rounds: int) -> float:
    """Median milliseconds of a call; raises RuntimeError if it fails."""
    times, failed = take_turns(device, {"work": work}, rounds)
    if failed:
        raise RuntimeError(failed["work"])
    return summary(times["work"])["median"]


def ratios(times: Mapping[str, list[float]], name: str, base: str) -> dict[str, float] | None:
    """Times of `base` over those of `name`, round by round; None if either is missing."""
    if name not in times or base not in times:
        return None
    return summary(b / a for a, b in zip(times[name], times[base], strict=True))


def reason(error: BaseException) -> str:
    """Writes an exception as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:600]


def copy_gb_s(device: torch.device) -> float:
    """GB/s of a large copy within the device, counting bytes both read and written."""
    n_bytes = 1 << 20 if device.type == "cpu" else 4 << 30
    source = torch.randint(0, 255, (n_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2e-6 * n_bytes / median_ms(device, lambda: target.copy_(source), 5)


def longest_kernels(device: torch.device, work: Work) -> list[dict[str, Any]]:
    """Returns the kernels of one call with their times, the longest first."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device.type == "cuda"
    work()
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
        work()
        _synchronize(device)
    field = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    rows = [
        {"ms": getattr(event, field) / 1e3, "calls": event.count, "kernel": event.key[:160]}
        for event in found.key_averages()
        if getattr(event, field) > 0
    ]
    return sorted(rows, key=lambda row: -row["ms"])[:20]


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _time_ms(device: torch.device, work: Work, repeats: int = 1) -> float:
    """Milliseconds of one call, from events before and after `repeats` of them."""
    _synchronize(device)
    if device.type != "cuda":
        start_s = time.perf_counter()
        for _ in range(repeats):
            work()
        return (time.perf_counter() - start_s) * 1e3 / repeats
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / repeats


def _warm_up(device: torch.device, work: Work) -> int:
    """Calls until the device is warm; returns how many calls make a turn."""
    work()
    _synchronize(device)
    if device.type == "cpu":
        return 1
    start_s = time.perf_counter()
    while time.perf_counter() - start_s < _WARM_UP_S:
        work()
        _synchronize(device)
    return max(1, min(_MAX_REPEATS, round(_TURN_MS / max(_time_ms(device, work), 1e-3))))
