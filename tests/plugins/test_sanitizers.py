"""Laws of the emulation: it finds races and stray accesses in the kernels, and there are none."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from emulation import HOST, build_scan

pytestmark = pytest.mark.slow

SIZES = [(0, 32, 32), (1, 32, 32), (1, 64, 128)]
CASES = {  # with rows of whole units of 16 bytes and without
    # DTYPE HEADDIM D_STATE HEADS SEQUENCES LENGTH, compute capability
    "chunks in a cluster": ("1 32 32 8 1 140", "90"),
    "chunks in two steps": ("1 32 32 3 1 140", "80"),
    "chunks of float32": ("0 32 32 4 1 80", "90"),
    "one chunk in a cluster": ("1 32 32 16 1 62", "90"),
    "one chunk in two steps": ("1 32 32 18 1 62", "80"),
    "one chunk of float32": ("0 32 32 3 1 40", "90"),
    "published sizes, chunks": ("1 64 128 8 1 66", "90"),
    "published sizes, one chunk": ("1 64 128 9 1 62", "90"),
}
LEAST_BARRIERS = 6  # of a block or of its cluster, in every case


@pytest.fixture(scope="module", params=["thread", "address"])
def sanitizer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def program(sanitizer: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp(sanitizer) / "scan"
    return build_scan(target, SIZES, sanitizer=sanitizer, main=HOST / "sanitized_scan.cpp")


def run(program: Path, case: str, *more: str, **planted: str) -> subprocess.CompletedProcess[str]:
    words, compute = CASES[case]
    return subprocess.run(
        [str(program), *words.split(), *more],
        env=os.environ
        | {"BSM_EMULATED_COMPUTE": compute, "TSAN_OPTIONS": "halt_on_error=1"}
        | planted,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("case", CASES)
def test_kernels_are_clean(program: Path, case: str):
    done = run(program, case)
    assert (done.returncode, done.stdout, done.stderr) == (0, "no error\n", "")


@pytest.mark.parametrize("sanitizer", ["thread"], indirect=True)
@pytest.mark.parametrize("barrier", range(LEAST_BARRIERS))
@pytest.mark.parametrize("case", list(CASES)[:6])
def test_every_missing_barrier_is_found(program: Path, case: str, barrier: int):
    done = run(program, case, BSM_SKIP_BARRIER=str(barrier))
    assert "data race" in done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize("sanitizer", ["address"], indirect=True)
@pytest.mark.parametrize("case", CASES)
def test_too_little_shared_memory_is_found(program: Path, case: str):
    done = run(program, case, BSM_SHARED_SHORT="4")
    assert "heap-buffer-overflow" in done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize("sanitizer", ["address"], indirect=True)
@pytest.mark.parametrize("case", CASES)
def test_outputs_that_are_too_short_are_found(program: Path, case: str):
    done = run(program, case, "2")
    assert "heap-buffer-overflow" in done.stderr
    assert done.returncode != 0
