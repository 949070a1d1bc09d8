"""Laws of float16 on a CPU: every value is one of float16, products are sums in float32."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from networks import random_network, random_spectrum
from tolerances import assert_close, relative_rms

from bsmamba2.export.precision.rounding import HalfRounding, RoundedNetwork
from bsmamba2.models.folded import fold


def half(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float16)


@pytest.mark.parametrize("frames", [1, 3, 65])
def test_rounded_network_is_pytorchs_own_float16(frames: int):
    """PyTorch's float16 also rounds some sums, so the two agree within its own error."""
    network = fold(random_network(dtype=torch.float32), torch.float16)
    spectrum = random_spectrum(1, frames, dtype=torch.float32)
    with torch.inference_mode():
        expected = network(spectrum)
    assert_close(RoundedNetwork(network)(spectrum.numpy()), expected, "float16", slack=2)


def test_rounding_differs_from_float32_by_that_of_float16():
    network = random_network(dtype=torch.float32)
    spectrum = random_spectrum(1, 3, dtype=torch.float32)
    with torch.inference_mode():
        expected = network(spectrum)
    mask = RoundedNetwork(fold(network, torch.float16))(spectrum.numpy())
    assert mask.dtype == np.float32
    assert 1e-4 < relative_rms(mask, expected) < 3e-3


def test_products_are_summed_in_float32_and_rounded_once():
    ones, tiny = torch.ones(1, 4096).half(), torch.full((4096, 1), 2.0**-12).half()
    tiny[0] = 2048  # float16 has no 2048 + 2^-12
    with HalfRounding():
        product = ones @ tiny
    assert product.dtype == torch.float16
    assert product.item() == half(2048 + 4095 * 2.0**-12).item()


def test_every_result_is_rounded():
    with HalfRounding():
        assert ((half(2048) + half(1)) - half(2048)).item() == 0
        assert (half(2.0**-24) * half(0.25)).item() == 0
        assert torch.isinf(half(65504) * half(2)).item()


def test_a_float32_tensor_makes_the_result_float32_and_a_number_does_not():
    with HalfRounding():
        assert (half(2048) + torch.ones(1)).item() == 2049
        assert (half(2048) + 1).dtype == torch.float16
        assert (half(2048) + torch.tensor(1.0)).dtype == torch.float16


@pytest.mark.parametrize(
    ("value", "seen"), [(100.0, 200.0), (-100.0, 200.0), (65000.0, math.inf), (math.nan, math.nan)]
)
def test_the_largest_magnitude_is_seen(value: float, seen: float):
    with HalfRounding() as rounding:
        half(value) * half(2)
        half(1) * half(1)
    assert rounding.largest == pytest.approx(seen, nan_ok=True)


def test_a_cast_that_overflows_is_seen():
    with HalfRounding() as rounding:
        torch.tensor([1e6]).half()
    assert rounding.largest == math.inf


def test_overflow_inside_the_scan_is_seen():
    """In float32 there is none: the scan's norm removes the scale."""
    network = random_network(dtype=torch.float32)
    spectrum = random_spectrum(1, 3, dtype=torch.float32).numpy()
    block = network.layers[0][0].forward_blocks[0]
    block.mixer.conv1d.bias.data.fill_(3e4)
    rounded = RoundedNetwork(fold(network, torch.float16))
    rounded(spectrum)
    assert not math.isfinite(rounded.largest)
    with torch.inference_mode():
        assert fold(network)(torch.from_numpy(spectrum)).isfinite().all()
