"""All files and settings that the guides to the native part name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDES = ("plugins/README.md", "docs/gpu.md", "tests/cuda_on_host/README.md")
FOLDERS = (
    "plugins",
    "plugins/cuda",
    "plugins/tensorrt",
    "plugins/include",
    "tests",
)
FOLDERS += ("tests/cuda_on_host", "tests/plugins", "bench/gpu", ".")
SUFFIXES = (".py", ".h", ".cuh", ".cu", ".cpp", ".sh", ".txt")


def text(guide: str) -> str:
    return (ROOT / guide).read_text("utf-8")


def prose(guide: str) -> str:
    """The guide without the tables that a script writes."""
    return re.sub(r"<!-- begin.*?<!-- end -->", "", text(guide), flags=re.DOTALL)


@pytest.mark.parametrize("guide", GUIDES)
def test_files_exist(guide: str):
    names = [name for name in re.findall(r"`([\w./]+)`", prose(guide)) if name.endswith(SUFFIXES)]
    assert names
    for name in names:
        assert any((ROOT / folder / name).is_file() for folder in FOLDERS), name


def test_the_map_has_every_source():
    listed = prose(GUIDES[0]).split("## Design")[0]
    folder = ROOT / "plugins"
    sources = [*folder.glob("*.py"), *folder.glob("cuda/*"), *folder.glob("tensorrt/*.cpp")]
    for path in sources:
        stem = path.stem.removesuffix("_ptx").removesuffix("_cuda")
        assert stem in listed or stem in ("__init__", "instance"), path.name


def test_settings_of_the_emulated_gpu_are_those_of_its_source():
    folder = ROOT / "tests/cuda_on_host"
    source = "".join(path.read_text() for path in folder.glob("*.[hc]*"))
    known = set(re.findall(r'"(BSM_(?!API)[A-Z_]+)"', source))
    assert set(re.findall(r"`(BSM_[A-Z_]+)[=`]", text(GUIDES[-1]))) == known
