"""The wheel that pip builds from the checkout: it holds everything and separates on its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from songs import assert_null, decoded, excerpt

ROOT = Path(__file__).parents[1]
ROOMS = ("bsmamba2", "export", "plugins", "runtime")
DATA = (
    *("bsmamba2/py.typed", "bsmamba2/runtime/default.onnx", "bsmamba2/config/bsmamba2.yaml"),
    *("bsmamba2/plugins/include/bsm_scan.h", "bsmamba2/plugins/libbsm_scan_cpu.so"),
)

LOOK = """
import bsmamba2
from bsmamba2.plugins.cpu_library import CpuScanLibrary, find_cpu_library
print(*bsmamba2.__path__)
print(CpuScanLibrary(find_cpu_library()).instructions)
"""


def run(*command: str | Path, folder: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("*.so", "__py*"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
    run(*pip, "-w", folder, source, folder=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_and_its_data(wheel: Path):
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert set(DATA) <= inside
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            assert (name if room == "bsmamba2" else f"bsmamba2/{name}") in inside


def environment(folder: Path) -> Path:
    """The `bin` of a fresh environment that has the tests' dependencies but not this package."""
    run(sys.executable, "-m", "venv", "--without-pip", "env", folder=folder)
    (site,) = folder.glob("env/lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{Path(np.__file__).parents[1]}\n")
    return folder / "env" / "bin"


def test_the_wheel_separates_in_an_environment_of_its_own(wheel: Path, tmp_path: Path):
    song, programs = excerpt(), environment(tmp_path)
    pip = (sys.executable, "-m", "pip", "--python", programs / "python")
    run(*pip, "install", "-q", "--no-deps", wheel, folder=tmp_path)
    said = run(programs / "python", "-c", LOOK, folder=tmp_path).splitlines()
    assert Path(said[0]).is_relative_to(programs.parent)
    assert said[1] in ("avx512", "avx2", "portable")
    run(programs / "bsm", "infer", song, "-o", "{stem}.wav", "-q", folder=tmp_path)
    vocals, instrumental = (
        soundfile.read(tmp_path / f"{stem}.wav", dtype="float32")[0]
        for stem in ("vocals", "instrumental")
    )
    assert_null(decoded(song), vocals, instrumental)
    assert np.abs(vocals).max() > 0.1


def test_a_checkout_works_without_being_installed(tmp_path: Path):
    python = environment(tmp_path) / "python"
    rooms = (
        "import bsmamba2.export, bsmamba2.plugins, bsmamba2.runtime as room; print(room.__path__)"
    )
    assert str(ROOT / "runtime") in run(python, "-c", rooms, folder=ROOT)
    assert "infer" in run(python, "-m", "bsmamba2", "--help", folder=ROOT)
    for folder in (ROOT, tmp_path):
        assert "--rounds" in run(python, ROOT / "bench/latency.py", "--help", folder=folder)
