"""Laws of the names of architectures, and of the GPUs that their code runs on."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest

from bsmamba2.errors import PluginError
from bsmamba2.plugins import architectures
from bsmamba2.plugins.architectures import (
    current_gpu,
    gpus,
    resolve_architectures,
    runs_on,
)

KNOWN = (80, 86, 87, 89, 90, 100, 120)


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("90", ("sm_90",)),
        ("9.0", ("sm_90",)),
        ("sm_90", ("sm_90",)),
        ("12.0, 80", ("sm_80", "sm_120")),
        ("80;80 86", ("sm_80", "sm_86")),
        ("90+PTX,80", ("sm_80", "sm_90", "compute_90")),
        ("all", ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "compute_100")),
    ],
)
def test_names_are_those_people_write(text: str, targets: tuple[str, ...]) -> None:
    assert resolve_architectures(text, KNOWN) == targets


def test_all_leaves_out_what_an_older_nvcc_lacks() -> None:
    assert resolve_architectures("all", (80, 90)) == ("sm_80", "sm_90", "compute_90")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "No architecture given: use native, all, or a list"),
        ("hopper", "'hopper' is not an architecture: use native"),
        ("90a", "'90a' is not an architecture"),
        ("75", "need architecture 80 or newer, not 75"),
        ("90,500", "This nvcc has no target 500: install a newer one, .* --arch 90.PTX, which the"),
    ],
)
def test_other_names_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(PluginError, match=sentence):
        resolve_architectures(text, KNOWN)


def native(monkeypatch: pytest.MonkeyPatch, *here: int) -> tuple[str, ...]:
    monkeypatch.setattr(architectures, "gpus", lambda: here)
    return resolve_architectures("native", KNOWN)


def test_native_is_each_kind_of_gpu_here_that_is_new_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert native(monkeypatch, 90, 80, 75, 90) == ("sm_80", "sm_90")
    with pytest.raises(
        PluginError, match=r"capability 7\.5, but the kernels need 8\.0 .* --arch 90"
    ):
        native(monkeypatch, 75)


@pytest.mark.parametrize(
    ("targets", "gpu", "runs"),
    [
        (("sm_80",), 80, True),
        (("sm_80",), 86, True),
        (("sm_86",), 80, False),
        (("sm_80",), 90, False),
        (("sm_80", "compute_90"), 90, True),
        (("compute_90",), 89, False),
        (("sm_120", "compute_100"), 110, True),
        ((), 90, False),
    ],
)
def test_machine_code_runs_in_its_family_and_ptx_on_all_later(
    targets: tuple[str, ...], gpu: int, runs: bool
) -> None:
    assert runs_on(targets, gpu) is runs


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
    )


def test_driver_tells_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver(works=True))
    assert (gpus(), current_gpu()) == ((90, 86), 90)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver(works=False))
    assert (gpus(), current_gpu()) == ((), None)
