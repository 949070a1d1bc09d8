"""Laws of the cores that a process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bsmamba2.system.cores import bounded_threads, physical_cores, usable_cores

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", errors="surrogateescape")
    return root


@pytest.mark.parametrize(("groups", "files", "cores"), [
    ("0::/", {}, CPUS),
    ("0::/", {"cpu.max": "max 100000"}, CPUS),
    ("0::/", {"cpu.max": "100000 100000"}, 1),
    ("0::/", {"cpu.max": "5000 100000"}, 1),  # a part of a core is one thread
    ("0::/", {"cpu.max": "99900000 100000"}, CPUS),
    ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "100000 100000"}, 1),
    ("0::/host/path", {"cpu.max": "50000 50000"}, 1),  # as seen in a container
    ("0::/", {"cpu.max": "rubbish"}, CPUS),
    ("rubbish\n1:cpu\n0::/\0", {}, CPUS),
    ("0::/\udcff", {"cpu.max": "50000 50000"}, 1),  # not UTF-8
    ("3:cpuset:/\n1:cpu,cpuacct:/a\n0::/",
     {"cpu/a/cpu.cfs_quota_us": "100000", "cpu/a/cpu.cfs_period_us": "100000"}, 1),
    ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, CPUS),
])  # fmt: skip
def test_a_quota_is_as_good_as_so_many_cores(
    tmp_path: Path, groups: str, files: dict[str, str], cores: int
):
    mounted = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    assert usable_cores(write(tmp_path, {"proc/self/cgroup": groups} | mounted)) == cores


def test_hardware_threads_of_one_core_are_one(tmp_path: Path):
    assert physical_cores(tmp_path) == CPUS  # where nothing is known
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    one = {topology.format(cpu): "0-1023" for cpu in range(1024)}
    assert physical_cores(write(tmp_path, one)) == 1


def test_only_a_wish_for_too_many_threads_is_warned_of(caplog: pytest.LogCaptureFixture):
    assert bounded_threads(None, 9999) == bounded_threads(usable_cores(), 1) == usable_cores()
    assert bounded_threads(1, 2) == bounded_threads(None, 1) == 1
    assert not caplog.messages
    assert bounded_threads(9999, 1) == bounded_threads(9999, 1) == usable_cores()
    assert len(caplog.messages) == 1
