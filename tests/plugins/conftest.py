"""Builds that leave the user's cache and the GPUs of this machine out."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_builds import write_sources

from bsmamba2.plugins import architectures, build


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small sources in place of the real ones."""
    folder = write_sources(tmp_path / "sources")
    monkeypatch.setattr(build, "source_folder", lambda: folder)
    return folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(architectures, "gpus", lambda: ())
    return tmp_path / "cache"
