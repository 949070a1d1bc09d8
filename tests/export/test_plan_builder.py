"""The choice of the builder, and what only TensorRT has.

TensorRT itself cannot be installed where the tests run. Its part is played by TensorRT-RTX, which
has the same interface, under its name: everything that is called is real, but nothing is measured
on a GPU.
"""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from plan_building import bsm, refusal

from bsmamba2.errors import ExportError
from bsmamba2.export.plan import builder as plan_builder
from bsmamba2.export.plan.builder import BuilderLog, attach_progress, choose_builder
from bsmamba2.export.plan.options import PlanOptions, read_frames
from bsmamba2.formats.trt_plan import BUILDERS, read_sidecar


def install(monkeypatch: pytest.MonkeyPatch, *, gpu: int | None, **versions: str | None) -> None:
    """Installs stand-ins of these versions, None for one that does not load, and no others."""
    find = importlib.util.find_spec

    def find_builder(name: str) -> ModuleSpec | None:
        if name not in BUILDERS.values():
            return find(name)
        return ModuleSpec(name, None) if name in versions else None

    for name in BUILDERS.values():
        module = types.ModuleType(name)
        module.__version__ = versions.get(name)  # type: ignore[attr-defined]
        if versions.get(name) is None:
            del module.__version__
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(importlib.util, "find_spec", find_builder)
    monkeypatch.setattr(plan_builder, "current_gpu", lambda: gpu)


# --- which builder ---


@pytest.mark.parametrize(
    ("gpu", "versions", "name", "architectures"),
    [
        (90, {"tensorrt": "10.13.0.35", "tensorrt_rtx": "1.7.1.116"}, "tensorrt", ("9.0",)),
        (120, {"tensorrt": "11.4.0"}, "tensorrt", ("12.0",)),
        (None, {"tensorrt": "11.4.0", "tensorrt_rtx": "1.7.1.116"}, "tensorrt-rtx", ()),
        (90, {"tensorrt_rtx": "1.7.1.116"}, "tensorrt-rtx", ()),
    ],
)
def test_tensorrt_is_taken_where_it_can_build_and_tensorrt_rtx_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
    gpu: int | None,
    versions: dict[str, str | None],
    name: str,
    architectures: tuple[str, ...],
):
    install(monkeypatch, gpu=gpu, **versions)
    builder = choose_builder()
    assert (builder.name, builder.architectures) == (name, architectures)
    assert builder.trt is sys.modules[BUILDERS[name]]
    assert str(builder).endswith(str(versions[BUILDERS[name]]))


def test_named_builder_is_taken(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, gpu=90, tensorrt="11.4.0", tensorrt_rtx="1.7.1.116")
    assert choose_builder("tensorrt-rtx").name == "tensorrt-rtx"


@pytest.mark.parametrize(
    ("name", "gpu", "versions", "sentence"),
    [
        ("auto", None, {}, r"Neither .* is installed: .*bsmamba2\[trt\].*bsmamba2\[trt-rtx\]"),
        ("tensorrt", 90, {"tensorrt_rtx": "1.7.1"}, r"^tensorrt is not installed: .*bsmamba2\[trt"),
        ("tensorrt-rtx", 90, {"tensorrt": "11.4.0"}, "^tensorrt-rtx is not installed: pip install"),
        ("auto", None, {"tensorrt": "11.4.0"}, "only on the GPU that will run it, and this"),
        (
            "tensorrt",
            None,
            {"tensorrt": "11.4.0", "tensorrt_rtx": "1.7.1"},
            "this machine has none",
        ),
        ("auto", 90, {"tensorrt": "10.12.0.36"}, "tensorrt 10.12.0.36 is too old; 10.13 or newer"),
        ("auto", 90, {"tensorrt": "8.6.1"}, "is too old; 10.13 or newer is needed: pip install"),
        ("auto", None, {"tensorrt_rtx": "1.1.1"}, "tensorrt-rtx 1.1.1 is too old; 1.2 or newer"),
        ("auto", 90, {"tensorrt": None}, "tensorrt does not load .*: install it again"),
    ],
)
def test_builder_that_cannot_build_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    gpu: int | None,
    versions: dict[str, str | None],
    sentence: str,
):
    install(monkeypatch, gpu=gpu, **versions)
    with pytest.raises(ExportError, match=sentence) as error:
        choose_builder(name)
    assert "\n" not in str(error.value)


# --- options ---


@pytest.mark.parametrize(
    ("text", "frames"),
    [("801", (801, 801, 801)), ("1:801:1601", (1, 801, 1601)), ("01", (1, 1, 1))],
)
def test_frames_are_one_number_or_a_range(text: str, frames: tuple[int, int, int]):
    assert read_frames(text) == frames


@pytest.mark.parametrize("text", ["", "a", "1:2", "1:2:3:4", "1::3", "-1", "1.5", " 1", "\u00b2"])
def test_what_is_no_number_of_frames_is_one_sentence(text: str):
    with pytest.raises(ExportError, match=r"is not a number of frames: write 801, or 1:801:1601"):
        read_frames(text)


def test_wrong_builder_is_one_sentence():
    with pytest.raises(ExportError, match=r"^Unknown builder 'trt': choose auto, tensorrt, tens"):
        PlanOptions(builder="trt")


def test_checkpoint_without_torch_names_the_extra(tmp_path: Path):
    sentence = refusal(bsm(tmp_path, "export", "tiny", "--trt"))
    assert sentence.endswith("needs the 'export' extra: pip install 'bsmamba2[export]'")


# --- log and progress ---


def test_errors_are_kept_until_the_build_has_ended(caplog: pytest.LogCaptureFixture):
    log = BuilderLog()
    with caplog.at_level(logging.INFO):
        log.add("INFO", "one\n  line")
        log.add("WARNING", "careful")
        log.add("ERROR", "a tactic failed")
        assert [record.message for record in caplog.records] == ["one line", "careful"]
        log.warn_of_errors()
    assert [record.message for record in caplog.records[2:]] == ["a tactic failed"]


@pytest.mark.parametrize(
    ("errors", "last"),
    [
        ([], "it does not say why"),
        (["first", "second."], "second"),
        (["first", "[catchCudaError] cudaError 35"], "first"),
        (["[catchCudaError] cudaError 35"], "[catchCudaError] cudaError 35"),
        (["bsm::BiMamba2Scan: no kernel", "a layer failed"], "bsm::BiMamba2Scan: no kernel"),
    ],
)
def test_last_error_is_the_plugins_or_the_builders_own(errors: list[str], last: str):
    log = BuilderLog()
    for error in errors:
        log.add("ERROR", error)
    assert log.last_error() == last


def test_progress_is_reported_now_and_then():
    trt = pytest.importorskip("tensorrt_rtx")
    said: list[str] = []
    monitor = attach_progress(trt, said.append, lambda: True, interval_s=0)
    monitor.phase_start("Building engine", None, 2)
    monitor.phase_start("Cloning", "Building engine", 3)
    assert monitor.step_complete("Cloning", 1)
    assert monitor.step_complete("Building engine", 0)
    assert said == ["Cloning: 2 of 3.", "Building engine: 1 of 2."]
    seldom = attach_progress(trt, said.append, lambda: False, interval_s=60)
    seldom.phase_start("Cloning", None, 3)
    assert not seldom.step_complete("Cloning", 0)
    assert len(said) == 2


# --- TensorRT, played by TensorRT-RTX ---

AS_TENSORRT = """
import tensorrt_rtx
sys.modules["tensorrt"] = tensorrt_rtx
tensorrt_rtx.__version__ = "10.13.2.6"
from bsmamba2.export.plan import builder as plan_builder
plan_builder.current_gpu = lambda: 90
"""


def build_as_tensorrt(
    folder: Path, source: Path, plugin: Path, before: str = AS_TENSORRT
) -> subprocess.CompletedProcess[str]:
    arguments = ("export", source, "--trt", "--plugin", plugin, "-o", "a.plan")
    return bsm(folder, *arguments, before=before)


def test_plan_of_tensorrt_is_bound_to_the_gpu(
    tiny_onnx: Path, plugin_library: Path, tmp_path: Path
):
    pytest.importorskip("tensorrt_rtx")
    done = build_as_tensorrt(tmp_path, tiny_onnx, plugin_library)
    assert done.stdout == "a.plan\n", done.stderr
    assert "Building with TensorRT 10.13.2.6: " in done.stderr
    record, _ = read_sidecar(tmp_path / "a.plan")
    assert (record.builder, record.builder_version) == ("tensorrt", "10.13.2.6")
    assert record.architectures == ("9.0",)
    assert "--builder tensorrt " in record.command


def test_builder_that_cannot_start_cuda_is_one_sentence(
    tiny_onnx: Path, plugin_library: Path, tmp_path: Path
):
    pytest.importorskip("tensorrt_rtx")
    failing = (
        AS_TENSORRT
        + """
def start(logger):
    warning = tensorrt_rtx.ILogger.Severity.WARNING
    logger.log(warning, "CUDA initialization failure with error: 35.")
    raise TypeError("pybind11::init(): factory function returned nullptr")
tensorrt_rtx.Builder = start
"""
    )
    assert refusal(build_as_tensorrt(tmp_path, tiny_onnx, plugin_library, failing)) == (
        "TensorRT 10.13.2.6 does not start (CUDA initialization failure with error: 35): update "
        "the NVIDIA driver."
    )
    assert not list(tmp_path.iterdir())
