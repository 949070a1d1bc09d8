"""Fixtures for the tests of the runtime."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fake_gpu.machine import Machine
    from processes import Command

    from bsmamba2.runtime.engines.tensorrt.engine import PlanEngine


@pytest.fixture(scope="session")
def quick_onnx(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with chunks of 2 s; without torch, the embedded model takes its place."""
    from small_engines import with_chunks

    from bsmamba2.runtime.engines import default_engine_path

    source = request.getfixturevalue("tiny_onnx") if find_spec("torch") else default_engine_path()
    return with_chunks(source, 2, tmp_path_factory.mktemp("quick") / "quick.onnx")


@pytest.fixture
def bsm_infer(
    quick_onnx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """Runs `bsm infer` with the quick engine, in a folder of its own."""
    from processes import Outcome

    from bsmamba2.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, engine: Path = quick_onnx) -> Outcome:
        with pytest.raises(SystemExit) as exit:
            main(["infer", *arguments, "--engine", str(engine), "--threads", "2"])
        return Outcome(int(exit.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def machine() -> Machine:
    """A fake GPU, not installed in this process yet."""
    from fake_gpu.machine import Machine

    return Machine()


@pytest.fixture
def load(
    machine: Machine, short_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., PlanEngine]:
    """Loads a plan of the tiny model with chunks of one second, whose network is `quick`."""
    from plan_songs import quick
    from plans import install, write_plan

    from bsmamba2.errors import warn_once
    from bsmamba2.runtime.engines.base import EngineOptions
    from bsmamba2.runtime.engines.tensorrt.engine import load_plan

    warn_once.cache_clear()
    path = write_plan(short_onnx, tmp_path / "model.plan", frames=(60, 101, 200))

    def load(**quirks: Any) -> PlanEngine:
        install(monkeypatch, machine, **{"compute": quick, **quirks})
        return load_plan(path, EngineOptions())

    return load
