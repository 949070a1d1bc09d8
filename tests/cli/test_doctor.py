"""Laws of `bsm doctor`."""

from __future__ import annotations

import builtins
import importlib.metadata
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_gpu.machine import Machine
from plans import a_build, install
from processes import MAIN, bsm, printed, python

from bsmamba2.cli import doctor_checks as doctor
from bsmamba2.errors import EngineError
from bsmamba2.plugins import build
from bsmamba2.plugins.compilation import SCAN
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


def check(title: str, name: str) -> doctor.Check:
    return next(check for check in doctor.examine().checks[title] if check.name == name)


def test_json_says_what_runs_here() -> None:
    """Nothing else is printed, though pyfluidsynth prints when it is imported if CI is set."""
    report = json.loads(python(MAIN, "doctor", "--json", CI="true").stdout)
    assert report["ok"]
    engines = {check["name"]: check["ok"] for check in report["engines"]}
    assert list(engines) == [".onnx", ".safetensors", ".plan"]
    assert engines[".onnx"]
    assert engines[".safetensors"]
    assert report["packages"]["numpy"]
    assert report["cpus"] >= 1


def test_people_see_every_engine_kind() -> None:
    code, out, _ = bsm("doctor")
    assert code == 0
    assert all(name in out for name in (".onnx", ".safetensors", ".plan", "libsndfile"))
    assert re.search(r"^NVIDIA driver  (not )?found$", out, re.MULTILINE)
    assert not re.search(r"\b(True|False|None)\b", out)


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


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (EngineError("The engine is gone: reinstall bsmamba2."), "The engine is gone: reinstall"),
        (RuntimeError("first line\nsecond line"), "RuntimeError: first line second line"),
    ],
)
def test_any_failure_of_the_embedded_engine_is_a_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, error: Exception, line: str
) -> None:
    def broken(_: str) -> None:
        raise error

    monkeypatch.setattr(engines, "load_engine", broken)
    code, out, _ = bsm("doctor")
    assert code == 1
    assert line in out
    assert "Traceback" not in out
    assert json.loads(bsm("doctor", "--json").out)["ok"] is False


def test_absent_torch_is_no_failure_and_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "torch")
    assert doctor.examine().ok
    found = check("engines", ".safetensors")
    assert not found.ok
    assert "bsmamba2[train]" in found.detail


def test_both_onnxruntimes_are_a_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda n: "1.0" if n == "onnxruntime-gpu" else version(n)
    )
    found = check("engines", ".onnx")
    assert not found.ok
    assert "both installed" in found.detail


def test_a_version_below_the_declared_one_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = "\n".join(importlib.metadata.requires("bsmamba2") or ())
    needs = {
        "embedded engine": "numpy",
        ".onnx": "onnxruntime",
        ".safetensors": "torch",
        "soundfile": "soundfile",
        "m4a, mp4": "av",
    }
    lowest = dict(re.findall(r"^(\w+)>=([\d.]+)", declared, re.MULTILINE))
    version = importlib.metadata.version

    def pretend(versions: dict[str, str]) -> dict[str, doctor.Check]:
        monkeypatch.setattr(
            importlib.metadata, "version", lambda n: versions[n] if n in versions else version(n)
        )
        report = doctor.examine()
        return {check.name: check for found in report.checks.values() for check in found}

    found = pretend({package: f"{lowest[package]}.0+cpu" for package in needs.values()})
    assert all(found[name].ok for name in needs)
    found = pretend(dict.fromkeys(needs.values(), "0.4.10"))
    for name, package in needs.items():
        assert found[name] == doctor.Check(
            name=name,
            ok=False,
            detail=f"{package} 0.4.10 is older than {lowest[package]}, which bsmamba2 needs: "
            f"pip install '{package}>={lowest[package]}'",
        )


@pytest.mark.usefixtures("no_libraries")
def test_plans_say_everything_that_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "cupy"):
        monkeypatch.setitem(sys.modules, name, None)
    found = check("engines", ".plan")
    assert not found.ok
    assert found.detail == (
        "TensorRT and CuPy not installed: pip install 'bsmamba2[trt]'; "
        "the plugin is not built: bsm plugin build"
    )


def test_plans_say_what_they_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    install(monkeypatch, machine)
    assert check("engines", ".plan") == doctor.Check(
        name=".plan",
        ok=True,
        detail="TensorRT-RTX 1.7.1.116 on Pretended GPU, compute capability 9.0",
    )
    machine.driver = 12040
    found = check("engines", ".plan")
    assert not found.ok
    assert found.detail.startswith("the NVIDIA driver here supports CUDA 12.4")
    assert found.detail.endswith("update the driver")


@pytest.mark.usefixtures("no_libraries")
def test_scan_library_that_is_not_built_names_the_command_or_why_it_cannot_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = check("cuda", "scan library")
    assert not found.ok
    assert found.detail.startswith("not built: bsm plugin build")
    monkeypatch.setenv("CUDACXX", "absent")
    assert "CUDACXX names 'absent'" in check("cuda", "scan library").detail
    assert doctor.examine().ok


def test_scan_library_says_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    built = a_build(Path("build"), SCAN)
    monkeypatch.setattr(build, "find_libraries", lambda plugin=False: None if plugin else built)
    found = check("cuda", "scan library")
    assert found.ok
    assert found.detail == "for sm_90, without the TensorRT plugin"


def test_doctor_module_imports_no_backend() -> None:
    code = (
        "import sys, bsmamba2.cli.doctor_checks;"
        "print(sorted({'torch', 'onnxruntime', 'numpy', 'soundfile'} & set(sys.modules)))"
    )
    assert printed(code) == "[]\n"
