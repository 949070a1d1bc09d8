"""A plan that cannot run here is refused in one sentence, before anything is done with it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fake_gpu import tensorrt_module
from fake_gpu.machine import Machine
from plans import COMMAND, a_build, install, with_plugin, write_plan
from processes import TESTS, printed

from bsmamba2.errors import BsmError
from bsmamba2.formats.trt_plan import PlanRecord
from bsmamba2.plugins import build
from bsmamba2.plugins.compilation import PLUGIN
from bsmamba2.runtime.engines import EngineOptions, load_engine
from bsmamba2.runtime.engines.tensorrt.runtime import PlanRuntime
from bsmamba2.system.files import sha256_file

Change = Callable[[PlanRecord], PlanRecord]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    install(monkeypatch, machine)
    return machine


@pytest.fixture
def make(machine: Machine, short_onnx: Path, tmp_path: Path) -> Callable[..., Path]:
    def make(change: Change = lambda record: record, **options: Any) -> Path:
        return write_plan(short_onnx, tmp_path / "model.plan", change=change, **options)

    return make


def refused(path: Path, **options: Any) -> str:
    """Loads a plan that must be refused; returns the sentence."""
    with pytest.raises(BsmError, match=r"\A[^\n]+[^.]\.\Z") as error:
        load_engine(path, EngineOptions(**options))
    return str(error.value)


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT must not be given the plan."""

    def touch(*_: object, **__: object) -> None:
        raise AssertionError("the plan was touched")

    monkeypatch.setattr(PlanRuntime, "__init__", touch)


RTX = "tensorrt-rtx"
LIBRARY = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00"
"""The beginning of a shared object."""
BUILT = "model.plan was built with TensorRT-RTX 1.7.1.116"
REFUSED: list[tuple[Change, list[str]]] = [
    (
        lambda record: replace(record, builder_version="1.6.0"),
        ["built with TensorRT-RTX 1.6.0, but 1.7.1.116 is", COMMAND, "pip install tensorrt-rtx=="],
    ),
    (
        lambda record: replace(record, builder="tensorrt", builder_version="11.4.0"),
        ["TensorRT 11.4.0, which is not installed: pip install tensorrt==11.4.0"],
    ),
    (
        lambda record: replace(record, architectures=("8.0", "8.6")),
        ["capability 8.0 or 8.6, but the Pretended GPU here has 9.0", COMMAND],
    ),
    (
        lambda record: with_plugin(record, version="2"),
        ["needs version 2 of the plugin, but this bsmamba2 has version 1", COMMAND],
    ),
    (
        lambda record: with_plugin(record, sources_sha256="1" * 64),
        ["plugin of another bsmamba2", COMMAND],
    ),
    (lambda record: replace(record, plan_sha256="1" * 64), ["not the file that its", COMMAND]),
]


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(("change", "words"), REFUSED)
def test_what_does_not_fit_this_machine_is_refused_untouched(
    make: Callable[..., Path], change: Change, words: list[str]
):
    sentence = refused(make(change))
    assert "model.plan" in sentence
    assert all(word in sentence for word in words), sentence


def test_a_plan_for_this_gpu_is_taken(make: Callable[..., Path]):
    load_engine(make(lambda record: replace(record, architectures=("8.0", "9.0"))))


@pytest.mark.usefixtures("untouched")
def test_a_cpu_is_no_place_for_a_plan(make: Callable[..., Path]):
    assert "runs on a GPU only" in refused(make(), device="cpu")
    assert "leave --precision out" in refused(make(), precision="float16")


# --- code in a plan ---


@pytest.mark.usefixtures("untouched")
def test_a_plan_that_carries_a_library_is_refused(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)  # TensorRT is not even imported
    assert "contains a library, whose code would run" in refused(make(kind=LIBRARY))


# --- the plugin ---


def test_the_plugin_is_loaded_before_the_plan(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, machine: Machine
):
    loaded = install(monkeypatch, machine)
    load_engine(make())
    assert loaded == [(sys.modules["tensorrt_rtx"], Path("build", PLUGIN))]


@pytest.mark.usefixtures("untouched")
def test_a_plugin_that_is_not_built_names_the_command(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(build, "find_libraries", lambda plugin=False: None)
    assert refused(make()).endswith("run 'bsm plugin build'.")


def test_a_plugin_of_unknown_sources_must_be_the_same_file(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    library = tmp_path / PLUGIN
    library.write_bytes(b"a library")
    found = a_build(tmp_path)
    monkeypatch.setattr(build, "find_libraries", lambda plugin=False: found)
    of_it = {"sources_sha256": "", "library_sha256": sha256_file(library)}
    load_engine(make(lambda record: with_plugin(record, **of_it)))
    library.write_bytes(b"another")
    sentence = refused(make(lambda record: with_plugin(record, **of_it)))
    assert "unknown sources" in sentence


# --- TensorRT, CuPy and the driver ---


def test_a_builder_that_is_absent_or_broken_names_the_package(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    wanted = "pip install tensorrt-rtx==1.7.1.116"
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    assert f"{BUILT}, which is not installed: {wanted}." in refused(make())

    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "tensorrt_rtx":
                raise OSError("libtensorrt_rtx.so.1: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "tensorrt_rtx")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    sentence = refused(make())
    assert f"{BUILT}, which does not load (libtensorrt_rtx.so.1" in sentence
    assert wanted in sentence


def test_absent_cupy_names_the_extra(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BsmError, match=r"needs the 'trt' extra: pip install 'bsmamba2\[trt\]'"):
        load_engine(make())


def test_cupy_without_cudas_libraries_names_them(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    def absent() -> None:
        raise ImportError('Failure finding "libcufft.so.12"\nmore')

    monkeypatch.setattr(sys.modules["cupy"].cuda.cufft, "getVersion", absent)
    sentence = refused(make())
    assert 'does not find CUDA\'s libraries (Failure finding "libcufft.so.12")' in sentence
    assert "pip install 'bsmamba2[trt]'" in sentence


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"driver": 0}, "No NVIDIA driver found here"),
        ({"driver": 12040}, "supports CUDA 12.4, but CuPy 14.2.0 needs CUDA 13.2: update"),
        ({"devices": 0}, "No NVIDIA GPU found here"),
        ({"devices": -1}, "No NVIDIA GPU found here"),
    ],
)
def test_a_missing_gpu_or_an_old_driver_is_said(
    make: Callable[..., Path], machine: Machine, state: dict[str, int], words: str
):
    vars(machine).update(state)
    assert words in refused(make())


@pytest.mark.parametrize(("builder", "title"), [("tensorrt", "TensorRT"), (RTX, "TensorRT-RTX")])
def test_a_driver_that_only_tensorrt_finds_too_old_is_one_sentence(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, machine: Machine,
    builder: str, title: str,
):  # fmt: skip
    install(monkeypatch, machine, builder=builder)
    path = make(lambda record: replace(record, builder=builder))
    machine.needed = machine.driver + 10
    sentence = refused(path)
    assert sentence.startswith(f"{title} 1.7.1.116 cannot load {path}: there is no NVIDIA driver")
    assert sentence.endswith("or it is too old: install a newer one.")


def test_a_plan_that_tensorrt_refuses_names_the_command(make: Callable[..., Path], tmp_path: Path):
    path = make(kind=b"????")
    sentence = refused(path)
    assert "TensorRT-RTX 1.7.1.116 cannot load" in sentence
    assert "Serialization assertion magicTag failed" in sentence
    assert COMMAND in sentence


# --- the fake GPU itself ---


def test_the_pretended_modules_have_only_what_tensorrt_rtx_has(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.undo()  # the real one
    trt = pytest.importorskip("tensorrt_rtx")
    assert isinstance(trt, ModuleType)
    pairs = [
        (tensorrt_module.Runtime, trt.Runtime),
        (tensorrt_module.Engine, trt.ICudaEngine),
        (tensorrt_module.RtxContext, trt.IExecutionContext),
        (tensorrt_module.RuntimeConfig, trt.IRuntimeConfig),
        (tensorrt_module.RuntimeCache, trt.IRuntimeCache),
        (tensorrt_module.ILogger, trt.ILogger),
        (tensorrt_module.Strategy, trt.ExecutionContextAllocationStrategy),
        (tensorrt_module.Specialization, trt.DynamicShapesKernelSpecializationStrategy),
        (tensorrt_module.Severity, trt.ILogger.Severity),
    ]
    own = {"compute", "capturable", "cache"}
    for pretended, real in pairs:
        names = {name for name in vars(pretended) if not name.startswith("_")} - own
        assert names <= set(dir(real)), pretended


CUPY_NAMES = """
import sys
sys.path.insert(0, sys.argv[1])
import cupy, cupyx, cupyx.scipy.fft
from fake_gpu import cupy_module
from fake_gpu.machine import Graph, Machine, Stream

def absent(pretended, real):
    names = {name for name in pretended if not name.startswith("_")}
    return sorted(name for name in names if not hasattr(real, name))

modules = cupy_module.make_modules(Machine())
pairs = [(vars(module), sys.modules[name]) for name, module in modules.items()]
pairs += [(vars(cupy_module.ndarray), cupy.ndarray), (vars(Graph), cupy.cuda.Graph)]
pairs += [(vars(Stream), cupy.cuda.Stream)]
pairs += [(vars(modules["cupy"].cuda), cupy.cuda)] if "--libraries" in sys.argv else []
pairs += [(vars(modules["cupy"].cuda.runtime), cupy.cuda.runtime)]
print([absent(*pair) for pair in pairs if absent(*pair)])
"""


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="needs CuPy")
def test_the_pretended_modules_have_only_what_cupy_has():
    assert printed(CUPY_NAMES, TESTS) == "[['enqueue']]\n"
