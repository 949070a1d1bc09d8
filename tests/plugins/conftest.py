"""Fixtures for builds that use neither the user's cache nor the GPUs of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_builds import write_sources

from bsmamba2.plugins import architectures, build
from bsmamba2.plugins.compilation import PLUGIN, SCAN, Options


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


@pytest.fixture
def compiled(sources: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """The builds that a fake nvcc was asked for; it writes files with the right names."""
    asked: list[Options] = []

    def run(_: Path, tree: Path, __: object, options: Options, log: Path, ___: object) -> None:
        asked.append(options)
        for name in (SCAN, PLUGIN):
            (tree / name).write_text(f"{name} {len(asked)}")
        log.write_text("done\n")

    monkeypatch.setattr(build, "compile_libraries", run)
    return asked
