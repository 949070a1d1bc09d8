"""The CPU cores that this process may use: its affinity, and the quota of its control groups.

More threads than that are no help: engines let their threads spin while they wait for each other,
so that eight threads on one core take many times as long as one, and hundreds may never end.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path

from bsmamba2.errors import warn_once

logger = logging.getLogger(__name__)


def usable_cores(root: Path = Path("/")) -> int:
    """Returns the number of logical CPUs that this process may use, at least 1.

    Args:
        root: The folder in which `proc` and `sys` lie.
    """
    return max(1, min([len(_affinity()), *map(math.ceil, _quotas(root))]))


def physical_cores(root: Path = Path("/")) -> int:
    """Returns the number of cores on which this process may run, whatever its quota.

    The logical CPUs of one core count once.

    Args:
        root: The folder in which `sys` lies.
    """
    return len({_hardware_threads(root, cpu) for cpu in _affinity()})


def bounded_threads(asked: int | None, default: int) -> int:
    """Returns the number of threads, at most `usable_cores`.

    Args:
        asked: The number that the user named; one above `usable_cores` is warned of once.
        default: The number to use if the user named none.
    """
    cores = usable_cores()
    if asked is None:
        return min(default, cores)
    if asked > cores:
        use = "1 CPU core: 1 thread is" if cores == 1 else f"{cores} CPU cores: {cores} threads are"
        warn_once(logger, f"This process may use {use} used, as {asked} would be slower.")
    return min(asked, cores)


def _affinity() -> set[int]:
    """The CPUs on which this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _hardware_threads(root: Path, cpu: int) -> str:
    """Names the logical CPUs that share a CPU's core; without this knowledge, only itself."""
    try:
        return (root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _quotas(root: Path) -> Iterator[float]:
    """Yields the limits of this process's control groups (versions 1 and 2) and those above."""
    mounts, own = root / "sys/fs/cgroup", _read(root / "proc/self/cgroup")
    for line in own.splitlines():
        controllers, _, group = line.partition(":")[2].partition(":")
        if "cpu" in controllers.split(","):
            mount, names = mounts / "cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        elif not controllers:
            mount, names = mounts, ["cpu.max"]
        else:
            continue
        # Within a container, the path may be the host's: then only the mount itself exists.
        folder = mount / group.lstrip("/")
        for level in (folder, *folder.parents):
            words = " ".join(_read(level / name) for name in names).split()
            if len(words) == 2 and words[0].isdecimal() and int(words[1]):
                yield int(words[0]) / int(words[1])
            if level == mount:
                break


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")
    except (OSError, ValueError):  # ValueError: no file can have such a name
        return ""
