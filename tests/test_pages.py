"""What every page of the project names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (".", "docs", "bsmamba2", "plugins", "plugins/cpu", "tests/cuda_on_host")
PAGES = [page for folder in FOLDERS for page in sorted((ROOT / folder).glob("*.md"))]
ROOMS = ("", "bsmamba2/", "runtime/")
"""Where paths on the page about architecture begin."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text("utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_rooms_and_files_of_the_architecture_exist():
    text = (ROOT / "docs/architecture.md").read_text("utf-8").split("## What comes")[0]
    paths = set(re.findall(r"(?<![\w/.])\w+(?:/\w+)*/(?:\w+(?:\.\w+)?)?", text))
    assert len(paths) > 30
    for path in paths:
        found = [ROOT / f"{room}{path}{end}" for room in ROOMS for end in ("", ".py")]
        assert any(candidate.exists() for candidate in found), path
