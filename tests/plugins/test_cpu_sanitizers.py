"""The scan for CPUs under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from cpu_scan import CpuScan, Isa

from bsmamba2.plugins.cpu_sources import compilations

pytestmark = pytest.mark.slow

MAIN = Path(__file__).with_name("cpu_scan_main.cpp")
SOURCES = Path(__file__).parents[2] / "plugins"
CASES = {  # N L H P S K
    "odd sizes, chunks": "2 131 3 5 7 4",
    "odd sizes, one chunk": "3 61 3 5 7 2",
    "whole vectors, chunks": "2 192 2 64 32 4",
    "one of everything": "1 1 1 1 1 1",
    "many taps": "1 70 2 16 16 9",
}


@pytest.fixture(scope="module", params=["address,undefined", "thread"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cpu_scan")
    compiler = os.environ.get("CXX", "g++")
    sanitized = ["-O1", "-g", "-fno-sanitize-recover=all", f"-fsanitize={request.param}"]
    objects = []
    for source, name, flags in [*compilations(), (str(MAIN), "main", ["-std=c++17", "-pthread"])]:
        objects.append(str(folder / f"{name}-{Path(source).stem}.o"))
        command = [compiler, *flags, *sanitized, f"-I{SOURCES / 'include'}", "-c"]
        command += [str(SOURCES / "cpu" / source), "-o", objects[-1]]
        subprocess.run(command, check=True)
    target = folder / "scan"
    subprocess.run([compiler, *sanitized, "-pthread", *objects, "-o", str(target)], check=True)
    return target


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("isa", list(Isa)[1:], ids=lambda isa: isa.name.lower())
def test_scan_is_clean(program: Path, isa: Isa, case: str):
    if not CpuScan().isa_name(isa):
        pytest.skip(f"this CPU has no {isa.name}")
    done = _run(program, isa, case)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("program", ["address,undefined"], indirect=True)
def test_an_output_that_is_too_short_is_found(program: Path):
    done = _run(program, Isa.BEST, "odd sizes, chunks", "1")
    assert "heap-buffer-overflow" in done.stderr
    assert done.returncode != 0


def _run(program: Path, isa: Isa, case: str, *more: str) -> subprocess.CompletedProcess[str]:
    words = [str(program), str(int(isa)), "3", *CASES[case].split(), *more]
    return subprocess.run(
        words,
        env=os.environ | {"TSAN_OPTIONS": "halt_on_error=1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
