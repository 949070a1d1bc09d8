"""Laws of naming GPUs, and of which code runs on which."""

from __future__ import annotations

import ctypes
from pathlib import Path
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

KNOWN = {75, 80, 86, 87, 89, 90, 100, 103, 120}


def native(monkeypatch: pytest.MonkeyPatch, *here: int) -> tuple[str, ...]:
    monkeypatch.setattr(architectures, "gpus", lambda: here)
    return resolve_architectures("native", KNOWN)


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
    assert resolve_architectures(text, KNOWN) == targets


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "No architecture named: say native, all, or a list"),
        ("hopper", "'hopper' is no architecture: say native"),
        ("90a", "'90a' is no architecture"),
        ("75", "need architecture 80 or newer, not 75"),
        ("121", r"does not compile for 121, only for 80, .*, 120: name these\."),
    ],
)
def test_other_names_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(PluginError, match=sentence):
        resolve_architectures(text, KNOWN)


def test_native_is_each_kind_of_gpu_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert native(monkeypatch, 80, 90) == ("80-real", "90-real")


def test_gpu_too_old_is_left_out_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert native(monkeypatch, 75, 90) == ("90-real",)


def test_gpu_too_old_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PluginError, match=r"capability 7\.5, the kernels need 8\.0 .* --arch 90"):
        native(monkeypatch, 75)


def test_gpu_newer_than_nvcc_takes_its_family_or_ptx(monkeypatch: pytest.MonkeyPatch) -> None:
    assert native(monkeypatch, 121) == ("120-real",)
    assert native(monkeypatch, 130) == ("120-virtual",)
    assert runs_on(native(monkeypatch, 121), 121)
    assert runs_on(native(monkeypatch, 130), 130)


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


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("printf '9.0\\n12.0\\n9.0\\n'", (90, 120)),
        ("printf '[N/A]\\n'", ()),
        ("exit 9", (61,)),  # the driver is asked instead
    ],
)
def test_gpus_are_those_that_nvidia_smi_or_the_driver_names(
    answer: str, found: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(architectures, "_ask_driver", lambda: [61])
    assert gpus.__wrapped__() == found


def driver(*, works: bool) -> SimpleNamespace:
    """libcuda.so.1 with one GPU of compute capability 9.0."""

    def put(target: Any, value: object) -> int:
        getattr(target, "_obj", target).value = value  # behind ctypes.byref
        return 0

    return SimpleNamespace(
        cuInit=lambda flags: 0 if works else 100,
        cuDeviceGetCount=lambda count: put(count, 1),
        cuDeviceGet=lambda device, index: put(device, index),
        cuDeviceGetAttribute=lambda value, name, device: put(value, {75: 9, 76: 0}[name]),
        cuDeviceGetName=lambda name, size, device: put(name, b"NVIDIA H100 80GB HBM3"),
    )


def test_driver_tells_capability_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver(works=True))
    assert (current_gpu(), current_gpu_name()) == (90, "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver(works=False))
    assert (current_gpu(), current_gpu_name()) == (None, "")
