"""Laws of the FLOP count."""

from __future__ import annotations

import pytest

from bench.common.flops import CHUNK, in_proj_shape, network_flops
from bsmamba2.config.file import load_config


def test_published_model_takes_2_64_tflop_a_chunk() -> None:
    model = load_config("bsmamba2").model
    flops = network_flops(model, model.audio.chunk_frames)
    expected = {  # GFLOP, counted independently
        "band_split": 1.68,
        "in_proj": 1415.77,
        "convolution": 12.20,
        "output": 703.00,
        "scan_time": 379.65,
        "scan_bands": 85.13,
        "masks": 39.49,
    }
    assert {name: value / 1e9 for name, value in flops.items()} == pytest.approx(expected, abs=5e-3)
    assert sum(flops.values()) == pytest.approx(2636.93e9, abs=5e6)


def test_in_proj_is_the_product_of_its_shape() -> None:
    model = load_config("tiny").model
    m, k, n = in_proj_shape(model, 101)
    blocks = 2 * model.network.layers
    assert network_flops(model, 101)["in_proj"] == blocks * 2 * m * k * n


def test_a_single_chunk_has_no_state() -> None:
    model = load_config("tiny").model
    one, two = (network_flops(model, frames)["scan_time"] for frames in (CHUNK, 2 * CHUNK))
    assert two > 2 * one


def test_chunk_is_the_scans() -> None:
    from bsmamba2.models.scan import CHUNK as SCAN_CHUNK

    assert CHUNK == SCAN_CHUNK
