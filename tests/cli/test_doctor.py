"""Laws of `bsm doctor`."""

from __future__ import annotations

import builtins
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_gpu.machine import Machine
from plans import install
from processes import MAIN, bsm, bsm_json, printed, python

from bsmamba2.cli import doctor_checks as doctor
from bsmamba2.errors import EngineError
from bsmamba2.plugins import build
from bsmamba2.plugins.cache import Libraries
from bsmamba2.runtime import engines


def hide(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Makes packages look as if they were not installed."""
    importing, version = builtins.__import__, importlib.metadata.version

    def import_(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] in packages:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return importing(name, *rest)

    def version_(name: str) -> str:
        if name in packages:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(builtins, "__import__", import_)
    monkeypatch.setattr(importlib.metadata, "version", version_)


@pytest.fixture
def no_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_json_says_what_runs_here() -> None:
    report = bsm_json("doctor")
    assert report["ok"]
    engines = {check["name"]: check for check in report["engines"]}
    assert list(engines) == [".onnx", ".safetensors", ".plan"]
    assert engines[".onnx"]["ok"]
    assert engines[".safetensors"]["ok"]
    assert "CPUExecutionProvider" in report["providers"]
    assert report["packages"]["numpy"]
    assert report["cpus"] >= 1


def test_nothing_else_is_printed_in_ci() -> None:
    """Where CI is set, pyfluidsynth prints when it is imported."""
    assert json.loads(python(MAIN, "doctor", "--json", CI="true").stdout)["ok"]


def test_embedded_engine_really_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    load = engines.load_engine

    def spy(path: str) -> Callable[..., Any]:
        engine = load(path)

        class Spy:
            metadata = engine.metadata

            def __call__(self, spectrum: Any) -> Any:
                shapes.append(spectrum.shape)
                return engine(spectrum)

        return Spy()

    monkeypatch.setattr(engines, "load_engine", spy)
    assert doctor.examine().ok
    assert shapes == [(1, 2, 8, 1025, 2)]


def test_a_broken_engine_is_one_sentence_and_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> None:
        raise EngineError("The engine is gone: reinstall bsmamba2.")

    monkeypatch.setattr(engines, "load_engine", broken)
    code, out, _ = bsm("doctor")
    assert code == 1
    assert "The engine is gone: reinstall bsmamba2." in out
    assert "Traceback" not in out
    assert json.loads(bsm("doctor", "--json").out)["ok"] is False


def test_any_failure_of_a_backend_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(engines, "load_engine", broken)
    code, out, _ = bsm("doctor")
    assert code == 1
    assert "RuntimeError: first line second line" in out


def test_absent_torch_is_no_failure_and_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "torch")
    report = doctor.examine()
    (check,) = [check for check in report.engines if check.name == ".safetensors"]
    assert report.ok
    assert not check.ok
    assert "bsmamba2[train]" in check.detail


def test_absent_core_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "soxr", raising=False)
    monkeypatch.setitem(doctor.CORE, "absent_package", "absent-package")
    code, out, _ = bsm("doctor")
    assert code == 1
    assert "pip install absent-package" in out


def test_both_onnxruntimes_are_a_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda n: "1.0" if n == "onnxruntime-gpu" else version(n)
    )
    (check,) = [check for check in doctor.examine().engines if check.name == ".onnx"]
    assert not check.ok
    assert "both installed" in check.detail


def test_people_see_every_engine_kind() -> None:
    code, out, _ = bsm("doctor")
    assert code == 0
    assert all(name in out for name in (".onnx", ".safetensors", ".plan", "libsndfile"))


def test_practice_songs_without_their_programs_name_the_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (check,) = doctor.examine().training
    assert not check.ok
    assert "apt-get install espeak-ng flite" in check.detail


def plan_line() -> doctor.Check:
    return next(check for check in doctor.examine().engines if check.name == ".plan")


@pytest.mark.usefixtures("no_libraries")
def test_plans_say_everything_that_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "cupy"):
        monkeypatch.setitem(sys.modules, name, None)
    check = plan_line()
    assert not check.ok
    assert "TensorRT is not installed: pip install 'bsmamba2[trt]'" in check.detail
    assert "CuPy, which needs the 'trt' extra" in check.detail
    assert check.detail.endswith("the plugin is not built: bsm plugin build")


def test_plans_say_what_they_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    install(monkeypatch, machine)
    assert plan_line() == doctor.Check(
        name=".plan",
        ok=True,
        detail="TensorRT-RTX 1.7.1.116 on Pretended GPU, compute capability 9.0",
    )
    machine.driver = 12040
    check = plan_line()
    assert not check.ok
    assert check.detail.startswith("The NVIDIA driver here is one for CUDA 12.4")
    assert check.detail.endswith("update the driver")


@pytest.mark.usefixtures("no_libraries")
def test_scan_library_that_is_not_built_names_the_command() -> None:
    check = doctor.examine().cuda[0]
    assert not check.ok
    assert check.detail.startswith("not built: bsm plugin build")


@pytest.mark.usefixtures("no_libraries")
def test_missing_compiler_says_why_there_is_no_scan_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDACXX", "absent")
    report = doctor.examine()
    assert report.ok
    assert "CUDACXX names 'absent'" in report.cuda[0].detail


def test_scan_library_says_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    built = Libraries(
        scan=Path("scan"), plugin=None, architectures=("90-real",), ptxas_log=Path("log")
    )
    monkeypatch.setattr(build, "find_libraries", lambda plugin=False: None if plugin else built)
    check = doctor.examine().cuda[0]
    assert check.ok
    assert check.detail == "for sm_90, without the TensorRT plugin"


def test_plan_builder_is_named_or_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    absent: tuple[str, ...] = ("tensorrt", "tensorrt_rtx")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in absent else find(name)
    )
    check = doctor.examine().cuda[1]
    assert not check.ok
    assert check.detail.startswith("Neither TensorRT nor TensorRT-RTX is installed: pip install")
    trt = pytest.importorskip("tensorrt_rtx")
    absent = ("tensorrt",)
    check = doctor.examine().cuda[1]
    assert check.ok
    assert check.detail == f"TensorRT-RTX {trt.__version__}: bsm export MODEL --trt"


def test_doctor_module_imports_no_backend() -> None:
    code = (
        "import sys, bsmamba2.cli.doctor_checks;"
        "print(sorted({'torch', 'onnxruntime', 'numpy', 'soundfile'} & set(sys.modules)))"
    )
    assert printed(code) == "[]\n"
