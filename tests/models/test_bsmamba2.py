"""Laws of the network: it is the paper's, tensor by tensor and number by number."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from foreign_files import model_of
from networks import random_network, random_spectrum
from plain_network import mask_of
from tolerances import assert_close
from torch import Tensor

from bsmamba2.config.model import ModelConfig
from bsmamba2.errors import BsmError
from bsmamba2.formats.tensors import tensor_shapes
from bsmamba2.models.bsmamba2 import BSMamba2
from bsmamba2.models.load import load_network

TINY = model_of("tiny")


def plain_mask(network: BSMamba2, spectrum: Tensor) -> Tensor:
    """The mask of `plain_network`, as real and imaginary parts."""
    state = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    net = network.model.network
    complex_spectrum = torch.view_as_complex(spectrum).transpose(2, 3)
    mask = mask_of(state, complex_spectrum, layers=net.layers, d_state=net.d_state)
    return torch.view_as_real(mask.transpose(2, 3))


@torch.no_grad()
def mask_by(network: BSMamba2, spectrum: Tensor) -> Tensor:
    mask: Tensor = network(spectrum)
    return mask


# --- sizes ---


@pytest.fixture(scope="module")
def full_network() -> BSMamba2:
    return load_network("bsmamba2", seed=3)[0]


def test_full_network_has_48_098_188_parameters_in_675_tensors(full_network: BSMamba2):
    assert sum(parameter.numel() for parameter in full_network.parameters()) == 48_098_188
    assert len(full_network.state_dict()) == len(list(full_network.parameters())) == 675


@pytest.mark.parametrize("name", ["bsmamba2", "tiny"])
def test_tensors_have_the_published_names_shapes_and_order(name: str, full_network: BSMamba2):
    network = full_network if name == "bsmamba2" else BSMamba2(TINY)
    found = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    expected = tensor_shapes(model_of(name))
    assert found == expected
    assert list(found) == list(expected)
    assert [name for name, _ in network.named_parameters()] == list(expected)


# --- values ---


@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (2, 5), (1, 70)])
def test_mask_is_that_of_the_papers_formulas(batch: int, frames: int):
    network, spectrum = random_network(), random_spectrum(batch, frames)
    mask = mask_by(network, spectrum)
    assert mask.shape == spectrum.shape
    assert_close(mask, plain_mask(network, spectrum))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.flip(1),  # channels
        lambda x: x.flip(-1),  # real and imaginary part
        lambda x: x.flip(-2),  # bins
        lambda x: x.flip(2),  # frames
        lambda x: x.roll(1, dims=-2),
    ],
    ids=["channels", "parts", "bins", "frames", "shifted"],
)
def test_order_of_features_matters_as_in_the_formulas(change):
    network, spectrum = random_network(), random_spectrum()
    mask = mask_by(network, change(spectrum))
    assert_close(mask, plain_mask(network, change(spectrum)))
    assert (change(mask) - mask_by(network, spectrum)).abs().max() > 1e-2


def test_items_of_a_batch_do_not_touch_each_other():
    network, spectrum = random_network(), random_spectrum(3, 4)
    alone = [mask_by(network, item[None]) for item in spectrum]
    assert_close(mask_by(network, spectrum), torch.cat(alone))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_silence_has_a_finite_mask(dtype: torch.dtype):
    network, spectrum = random_network(dtype=dtype), torch.zeros(1, 2, 65, 1025, 2, dtype=dtype)
    assert mask_by(network, spectrum).isfinite().all()
    half = random_spectrum(1, 65, dtype=dtype)
    half[:, :, 20:40] = 0
    assert mask_by(network, half).isfinite().all()


def test_level_of_a_band_does_not_matter():
    """Bands are normalised, so a song played more softly has the same mask."""
    network, spectrum = random_network(), random_spectrum()
    assert_close(mask_by(network, spectrum * 1e-3), mask_by(network, spectrum))


def test_float32_is_near_float64():
    network, spectrum = random_network(), random_spectrum(1, 65)
    exact = mask_by(network, spectrum)
    assert_close(mask_by(network.float(), spectrum.float()), exact, "float32", slack=3)


@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # about speed only
def test_mask_under_autocast_is_near():
    network, spectrum = random_network(dtype=torch.float32), random_spectrum(1, 65)
    exact = mask_by(random_network(), spectrum)
    with torch.autocast("cpu", torch.bfloat16):
        mask = mask_by(network, spectrum.float())
    assert mask.dtype == torch.float32
    assert_close(mask, exact, "bfloat16", slack=3)


# --- gradients ---


def test_every_parameter_has_a_gradient_and_checkpointing_does_not_change_it():
    plain = random_network().train()
    checkpointed = BSMamba2(TINY, checkpoint_gradients=True).double()
    checkpointed.load_state_dict(plain.state_dict())
    masks = [network(random_spectrum()) for network in (plain, checkpointed)]
    assert torch.equal(*masks)
    for mask in masks:
        mask.square().sum().backward()
    for ours, expected in zip(checkpointed.parameters(), plain.parameters(), strict=True):
        assert expected.grad.any()
        assert_close(ours.grad, expected.grad)


def test_checkpointing_keeps_less_for_the_backward_pass():
    kept = []
    for checkpoint_gradients in (False, True):
        network, size = BSMamba2(TINY, checkpoint_gradients=checkpoint_gradients), [0]

        def pack(tensor: Tensor, size: list[int] = size) -> Tensor:
            size[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(random_spectrum(1, 8, dtype=torch.float32))
        kept.append(size[0])
    assert kept[1] < kept[0] / 3


# --- initial values ---


def test_initial_values_are_mamba_ssms_and_pytorchs(full_network: BSMamba2):
    def bounded(values: Tensor, fan_in: int) -> None:
        """Uniform within 1 / sqrt(fan_in), and using all of it."""
        bound = 1 / math.sqrt(fan_in)
        assert 0.95 * bound < values.abs().max() <= bound

    for layer in full_network.layers:
        for block in layer:
            bounded(block.linear.weight, 256)  # ConvTranspose1d counts its outputs
            for direction in (*block.forward_blocks, *block.backward_blocks):
                mixer = direction.mixer
                A, dt = mixer.A_log.exp(), torch.nn.functional.softplus(mixer.dt_bias.double())
                assert ((A >= 1) & (A <= 16)).all()
                assert ((dt > 0.999e-3) & (dt < 1.001e-1)).all()
                assert len(set(A.tolist())) == len(set(dt.tolist())) == 16
                for ones in (mixer.D, mixer.norm.weight, direction.norm.weight):
                    assert (ones == 1).all()
                bounded(mixer.in_proj.weight, 256)
                bounded(mixer.out_proj.weight, 1024)
                bounded(mixer.conv1d.weight, 4)
    assert (full_network.final_norm.gamma == 1).all()


def test_initial_steps_are_spread_over_their_decades(full_network: BSMamba2):
    biases = [p for name, p in full_network.named_parameters() if name.endswith("dt_bias")]
    steps = torch.nn.functional.softplus(torch.cat(biases).double()).log10()
    assert steps.min() < -2.9
    assert steps.max() > -1.1
    assert abs(steps.mean() + 2) < 0.15  # log-uniform: 384 of them


def test_seeds_are_reproducible_and_leave_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (load_network("tiny", seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    for (name, a), b, c in zip(
        first.named_parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(a, b)
        constant = name.endswith(("norm.weight", "gamma", ".D"))
        assert torch.equal(a, c) == constant


# --- what is refused ---


def test_load_network_refuses_what_is_no_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({}, "a.ckpt")
    Path("song.wav").touch()
    for name, words in {
        "a.ckpt": "bsm import a.ckpt -o a.safetensors",
        "huge": "bsmamba2, small, tiny",
        "song.wav": "is not a model",
    }.items():
        with pytest.raises(BsmError, match=r"^[^\n]+$") as error:
            load_network(name)
        assert words in str(error.value)


def test_other_sizes_follow_the_configuration():
    """A network with other heads, states and taps follows the formulas, too."""
    from dataclasses import replace

    net = replace(TINY.network, d_model=6, layers=1, headdim=8, d_state=3, d_conv=2, mask_expand=1)
    network = random_network(ModelConfig(audio=TINY.audio, network=net))
    spectrum = random_spectrum(1, 4)
    assert_close(mask_by(network, spectrum), plain_mask(network, spectrum))
