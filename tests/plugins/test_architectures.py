"""Laws of naming GPUs, and of which code runs on which."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest

from bsmamba2.errors import PluginError
from bsmamba2.plugins import architectures
from bsmamba2.plugins.architectures import (
    current_gpu,
    current_gpu_name,
    describe,
    gpus,
    resolve_architectures,
    runs_on,
)


def native(monkeypatch: pytest.MonkeyPatch, *here: int) -> tuple[str, ...]:
    monkeypatch.setattr(architectures, "gpus", lambda: here)
    return resolve_architectures("native")


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("all", ("all",)),
        ("90", ("90-real",)),
        ("9.0", ("90-real",)),
        ("sm_90", ("90-real",)),
        ("12.0, 80", ("80-real", "120-real")),
        ("80;80 86", ("80-real", "86-real")),
        ("90+PTX,80", ("80-real", "90-real", "90-virtual")),
    ],
)
def test_names_are_those_people_write(text: str, targets: tuple[str, ...]) -> None:
    assert resolve_architectures(text) == targets


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "No architecture named: say native, all, or a list"),
        ("hopper", "'hopper' is no architecture: say native"),
        ("90a", "'90a' is no architecture"),
        ("75", "need architecture 80 or newer, not 75"),
    ],
)
def test_other_names_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(PluginError, match=sentence):
        resolve_architectures(text)


def test_native_is_each_kind_of_gpu_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert native(monkeypatch, 80, 90) == ("80-real", "90-real")


def test_gpu_too_old_is_left_out_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert native(monkeypatch, 75, 90) == ("90-real",)


def test_gpu_too_old_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PluginError, match=r"capability 7\.5, the kernels need 8\.0 .* --arch 90"):
        native(monkeypatch, 75)


@pytest.mark.parametrize(
    ("targets", "gpu", "runs"),
    [
        (("80-real",), 80, True),
        (("80-real",), 86, True),
        (("86-real",), 80, False),
        (("80-real",), 90, False),
        (("80-real", "90-virtual"), 90, True),
        (("90-virtual",), 89, False),
        (("120-real", "100-virtual"), 110, True),
        ((), 90, False),
    ],
)
def test_machine_code_runs_in_its_family_and_ptx_on_all_later(
    targets: tuple[str, ...], gpu: int, runs: bool
) -> None:
    assert runs_on(targets, gpu) is runs


def test_description_is_for_people() -> None:
    assert describe(["80-real", "100-virtual"]) == "sm_80, PTX 100"
    assert describe(["all"]) == "all"


def driver(*, works: bool) -> SimpleNamespace:
    """libcuda.so.1 with a GPU of compute capability 9.0 and one of 8.6."""

    def put(target: Any, value: object) -> int:
        getattr(target, "_obj", target).value = value  # behind ctypes.byref
        return 0

    capabilities = ({75: 9, 76: 0}, {75: 8, 76: 6})
    return SimpleNamespace(
        cuInit=lambda flags: 0 if works else 100,
        cuDeviceGetCount=lambda count: put(count, 2),
        cuDeviceGet=lambda device, index: put(device, index),
        cuDeviceGetAttribute=lambda value, name, device: put(
            value, capabilities[device.value][name]
        ),
        cuDeviceGetName=lambda name, size, device: put(name, b"NVIDIA H100 80GB HBM3"),
    )


def test_driver_tells_capabilities_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver(works=True))
    assert (gpus(), current_gpu(), current_gpu_name()) == ((90, 86), 90, "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver(works=False))
    assert (gpus(), current_gpu(), current_gpu_name()) == ((), None, "")


def test_native_is_what_the_driver_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver(works=True))
    assert resolve_architectures("native") == ("86-real", "90-real")
