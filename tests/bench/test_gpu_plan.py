"""Laws of the part `plan` of `bench/gpu`; building and the whole part are in `test_gpu`."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.gpu.part import Job, Part, Skipped
from bench.gpu.plan import Replay, plan


@pytest.mark.parametrize(
    ("absent", "rehearsal", "reason"),
    [
        ({"tensorrt", "tensorrt_rtx"}, False, "neither tensorrt nor tensorrt_rtx is installed"),
        ({"cupy", "onnxscript"}, False, "onnxscript and cupy: not installed here"),
        (set(), True, "name the plugin's library with --plugin"),
    ],
)
def test_without_what_it_takes_it_is_skipped(
    absent: set[str], rehearsal: bool, reason: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else name)
    with pytest.raises(Skipped, match=reason):
        plan(Part(Job(part="plan", result="", rehearsal=rehearsal)))


class HalvingEngine:
    """The network of a plan's engine, with NumPy arrays in place of those on a GPU."""

    def __init__(self) -> None:
        self.made: list[tuple[int, int]] = []

    def network(self, batch: int, frames: int) -> Any:
        self.made.append((batch, frames))
        shape = (batch, 2, frames, 1025, 2)
        spectrum, mask = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        return SimpleNamespace(
            spectrum=spectrum, mask=mask, enqueue=lambda: np.divide(spectrum, 2, out=mask)
        )


def test_replay_is_the_plan_of_its_spectrum_whatever_came_before():
    engine = HalvingEngine()
    replay = Replay(engine, torch.device("cpu"))
    first, second = torch.randn(2, 2, 3, 1025, 2), torch.randn(2, 2, 3, 1025, 2)
    masks = [replay(first), replay(second), replay(first[:1])]
    for mask, spectrum in zip(masks, (first, second, first[:1]), strict=True):
        torch.testing.assert_close(mask, spectrum / 2)  # none was overwritten by a later one
    assert engine.made == [(2, 3), (1, 3)]
