"""Where the parts of `gpu.py` compute, and how they take times there.

A rehearsal has a CPU in the GPU's place: the same code, and times that mean nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bench.common.report import summary

Work = Callable[[], object]

_WARM_UP_S = 0.3  # clocks rise, Triton tunes and libraries choose their kernels meanwhile
_TURN_MS = 30.0  # of one candidate at a time
MAX_REPEATS = 200


@dataclass(frozen=True)
class Clock:
    """A device with its timer."""

    device: torch.device
    rehearsal: bool

    def synchronize(self) -> None:
        """Waits until the device has done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def time_ms(self, work: Work, repeats: int = 1) -> float:
        """Milliseconds of one call, from events before and after `repeats` of them."""
        self.synchronize()
        if self.device.type != "cuda":
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

    def pass_memory_mib(self, work: Work) -> float | None:
        """What a call allocates at its peak beyond what is there before; None on a CPU."""
        if self.device.type != "cuda":
            return None
        self.synchronize()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        work()
        self.synchronize()
        return (torch.cuda.max_memory_allocated(self.device) - before) / 2**20

    def warm_up(self, work: Work) -> int:
        """Calls until the device is warm; how many calls make a turn."""
        work()
        self.synchronize()
        if self.rehearsal:
            return 1
        start_s = time.perf_counter()
        while time.perf_counter() - start_s < _WARM_UP_S:
            work()
            self.synchronize()
        return max(1, min(MAX_REPEATS, round(_TURN_MS / max(self.time_ms(work), 1e-3))))


def take_turns(
    clock: Clock, candidates: Mapping[str, Work], rounds: int
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Times candidates in turn, A B C A B C, so that what disturbs one disturbs all.

    Args:
        clock: Of the device.
        candidates: Name -> one call of it.
        rounds: After the warm-up.

    Returns:
        Milliseconds of each round by name; and the reasons of those that failed.
    """
    times: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    repeats = {}
    for name, work in candidates.items():
        try:
            repeats[name] = clock.warm_up(work)
        except Exception as error:  # out of memory, a kernel that does not compile: others go on
            failed[name] = reason(error)
        else:
            times[name] = []
    for _ in range(rounds):
        for name, count in repeats.items():
            times[name].append(clock.time_ms(candidates[name], count))
    return times, failed


def ratios(times: Mapping[str, list[float]], name: str, base: str) -> dict[str, float] | None:
    """Times of `base` over those of `name`, round by round; None where one is missing."""
    if name not in times or base not in times:
        return None
    return summary(b / a for a, b in zip(times[name], times[base], strict=True))


def reason(error: BaseException) -> str:
    """An exception as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:600]


def copy_bandwidth(clock: Clock, n_bytes: int, rounds: int = 5) -> dict[str, Any]:
    """Bytes read and written a second by a copy of `n_bytes` within the device, in GB/s."""
    source = torch.randint(0, 255, (n_bytes,), dtype=torch.uint8, device=clock.device)
    target = torch.empty_like(source)
    times, failed = take_turns(clock, {"copy": lambda: target.copy_(source)}, rounds)
    if failed:
        raise RuntimeError(failed["copy"])
    return summary(2e-6 * n_bytes / ms for ms in times["copy"]) | {"bytes": n_bytes}
