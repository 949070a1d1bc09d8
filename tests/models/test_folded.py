"""Laws of folding: the same function, in float64 to 1e-10, whatever the parameters."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from foreign_files import model_of
from networks import random_network, random_spectrum
from tolerances import assert_close, relative_rms

from bsmamba2.config.model import ModelConfig
from bsmamba2.models.bsmamba2 import BSMamba2
from bsmamba2.models.folded import fold

TINY = model_of("tiny")


def assert_same_function(network: BSMamba2, batch: int, frames: int) -> None:
    """Compares with a relative limit of 1e-10; the real difference is far smaller."""
    spectrum = random_spectrum(batch, frames)
    with torch.no_grad():
        folded, expected = fold(network)(spectrum), network(spectrum)
    assert expected.abs().max() > 0.1
    assert (folded - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert_close(folded, expected)


@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (1, 2), (3, 5), (1, 63), (2, 65)])
@pytest.mark.parametrize("seed", [0, 1])
def test_folded_network_is_the_network(batch: int, frames: int, seed: int):
    assert_same_function(random_network(seed=seed), batch, frames)


def test_folding_follows_the_configuration():
    net = replace(TINY.network, d_model=6, layers=1, headdim=8, d_state=3, d_conv=2, mask_expand=1)
    assert_same_function(random_network(ModelConfig(audio=TINY.audio, network=net)), 2, 3)


def test_folded_float32_is_as_near_to_float64_as_the_network():
    network, spectrum = random_network(), random_spectrum(1, 65)
    with torch.no_grad():
        exact = network(spectrum)
        network = network.float()
        folded, plain = fold(network)(spectrum.float()), network(spectrum.float())
    assert_close(folded, exact, "float32", slack=3)  # two layers, one after the other
    assert relative_rms(folded, exact) < 2 * relative_rms(plain, exact)


def test_folded_silence_is_the_networks():
    network, silence = random_network(), torch.zeros(1, 2, 3, 1025, 2, dtype=torch.float64)
    with torch.no_grad():
        assert_close(fold(network)(silence), network(silence))


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_folding_leaves_the_network_alone(dtype: torch.dtype | None):
    network = random_network().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fold(network, dtype)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


def test_folded_network_has_no_parameters_and_no_gradients():
    folded = fold(random_network())
    assert not list(folded.parameters())
    assert not folded.training
    assert not folded(random_spectrum()).requires_grad


def test_training_on_does_not_change_what_was_folded():
    network, spectrum = random_network(), random_spectrum()
    folded = fold(network)
    before = folded(spectrum)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert torch.equal(folded(spectrum), before)


# --- half types ---


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("level", [0, 1e-3, 1, 1e3], ids=["silent", "quiet", "usual", "loud"])
def test_half_types_are_near_float64_at_any_level(dtype: torch.dtype, level: float):
    network, spectrum = random_network(), random_spectrum(2, 65) * level
    with torch.no_grad():
        mask = fold(network, dtype)(spectrum.float())
        assert mask.dtype == torch.float32
        assert_close(mask, network(spectrum), dtype, slack=2)  # two layers, one after the other


def test_half_type_takes_a_stream_whose_squares_it_cannot_hold():
    """Norms are float32, so values in the thousands, as in deep networks, do not overflow."""
    network, spectrum = random_network(), random_spectrum(1, 5)
    with torch.no_grad():
        for band in network.band_split.to_features:
            band[1].weight.mul_(2000)
        mask, expected = fold(network, torch.float16)(spectrum.float()), network(spectrum)
    assert_close(mask, expected, torch.float16, slack=2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_type_is_that_of_the_matrices_and_never_of_the_steps(dtype: torch.dtype):
    folded = fold(random_network(), dtype)
    types = {name.rpartition(".")[2]: tensor.dtype for name, tensor in folded.named_buffers()}
    steps = {name: types.pop(name) for name in ("dt_bias", "A", "D")}
    assert set(steps.values()) == {torch.float32}
    assert set(types.values()) == {dtype}
