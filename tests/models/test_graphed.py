"""Laws of the graphs: one per shape, the most recent are kept, the output is that of the network.

What is captured here is a stand-in; the last tests capture for real where there is a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from networks import random_network, random_spectrum
from tolerances import assert_close
from torch import Tensor

from bsmamba2.errors import warn_once
from bsmamba2.models import graphed
from bsmamba2.models.folded import fold
from bsmamba2.models.graphed import Function, GraphedNetwork


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    warn_once.cache_clear()
    yield
    warn_once.cache_clear()


class Captures:
    """Records which shapes are captured and which are replayed."""

    def __init__(self) -> None:
        self.captured: list[int] = []
        self.replayed: list[int] = []

    def __call__(self, network: Function, x: Tensor) -> Function:
        length = len(x)
        self.captured.append(length)

        def replay(x: Tensor) -> Tensor:
            assert len(x) == length
            self.replayed.append(length)
            return network(x)

        return replay


def double(x: Tensor) -> Tensor:
    return 2 * x


def test_a_shape_is_captured_once_and_replayed_each_time():
    captures = Captures()
    network = GraphedNetwork(double, capture=captures)
    for length in (3, 3, 5, 3, 5):
        x = torch.randn(length)
        assert torch.equal(network(x), 2 * x)
    assert captures.captured == [3, 5]
    assert captures.replayed == [3, 3, 5, 3, 5]


def test_the_shapes_last_used_are_kept(monkeypatch: pytest.MonkeyPatch):
    captures = Captures()
    monkeypatch.setattr(graphed, "MAX_GRAPHS", 2)
    network = GraphedNetwork(double, capture=captures)
    for length in (1, 2, 1, 3, 1, 2):  # 3 displaces 2, then 2 displaces 3
        network(torch.ones(length))
    assert captures.captured == [1, 2, 3, 2]
    assert len(network._replays) == 2


def test_a_graph_is_dropped_before_the_next_is_captured(monkeypatch: pytest.MonkeyPatch):
    """Memory never holds more graphs than are kept."""
    held = []

    def capture(network: Function, x: Tensor) -> Function:
        held.append(len(wrapped._replays))
        return network

    monkeypatch.setattr(graphed, "MAX_GRAPHS", 2)
    wrapped = GraphedNetwork(double, capture=capture)
    for length in (1, 2, 3, 4):
        wrapped(torch.ones(length))
    assert held == [0, 1, 1, 1]


def test_a_capture_that_fails_leaves_the_network_and_one_line(caplog: pytest.LogCaptureFixture):
    tries = []

    def capture(network: Function, x: Tensor) -> Function:
        tries.append(len(x))
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")

    network = GraphedNetwork(double, capture=capture)
    for length in (3, 3, 5):
        assert torch.equal(network(torch.ones(length)), torch.full((length,), 2.0))
    assert tries == [3, 5]
    (record,) = caplog.records
    assert record.message.endswith("(operation not permitted when stream is capturing).")


# --- on a GPU ---


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_graphs_of_the_folded_network_compute_its_masks(dtype: torch.dtype):
    network = random_network()
    folded = fold(network, dtype).cuda()
    replayed = GraphedNetwork(folded)
    for frames, batch, seed in ((65, 1, 0), (65, 1, 1), (3, 2, 2), (65, 1, 3)):
        spectrum = random_spectrum(batch, frames, seed=seed)
        with torch.no_grad():
            expected, plain = network(spectrum), folded(spectrum.float().cuda())
        mask = replayed(spectrum.float().cuda())
        assert torch.equal(mask, plain)
        assert_close(mask, expected, dtype, slack=3)


@pytest.mark.gpu
def test_a_result_outlives_the_next_replay():
    replayed = GraphedNetwork(fold(random_network(), torch.float32).cuda())
    first = replayed(random_spectrum().float().cuda())
    kept = first.clone()
    replayed(random_spectrum(seed=1).float().cuda())
    assert torch.equal(first, kept)


@pytest.mark.gpu
def test_a_network_that_synchronises_runs_without_a_graph(caplog: pytest.LogCaptureFixture):
    def synchronising(x: Tensor) -> Tensor:
        return x * float(x.sum().cpu())

    x = torch.ones(3, device="cuda")
    assert torch.equal(GraphedNetwork(synchronising)(x), 3 * x)
    assert "without a CUDA graph" in caplog.text
    assert torch.equal(GraphedNetwork(double)(x), 2 * x)  # the device still works
