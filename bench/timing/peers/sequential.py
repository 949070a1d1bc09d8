"""BSMamba2 as a port without a chunked scan would run it: one step of time after the other.

Ports of Mamba2 to plain PyTorch keep the recurrence as it is written, a state of (heads, channels,
states) a sequence that every step reads and writes whole; mamba_ssm's own `Mamba2.step` does so
where its kernels are absent. Here it takes the place of the scan in this project's network as
trained, in float32, all sequences of a block at a time; all else is the same PyTorch.

A chunk of the published network takes minutes that way. One layer, a block along time and one
along bands, is run with its own clock around it, in the network of one layer; the others have the
same shapes. The time of a chunk is that of the network of one layer and the clock's for each
layer more.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.common.job import Job, Task
from bench.timing.engines import SEED, mixture
from bsmamba2.formats.metadata import parse_metadata
from bsmamba2.models import mamba2
from bsmamba2.models.bsmamba2 import BSMamba2
from bsmamba2.models.scan import ScanParameters
from bsmamba2.runtime.engines.stft import istft, stft
from bsmamba2.system.files import read_safetensors_header

LAYERS = 1
"""Of the network that is run."""


def scan_direction_stepwise(
    zxbcdt: Tensor,
    parameters: ScanParameters,
    *,
    d_state: int,
    eps: float,
    reverse: bool = False,
) -> Tensor:
    """What `bsmamba2.models.kernels.scan_direction` computes, step by step."""
    if reverse:
        return scan_direction_stepwise(zxbcdt.flip(1), parameters, d_state=d_state, eps=eps).flip(1)
    conv_weight, conv_bias, dt_bias, A, D = parameters
    heads, taps, length = len(A), conv_weight.shape[-1], zxbcdt.shape[1]
    inner = len(conv_weight) - 2 * d_state
    z_NLI, xbc, dt_NLH = zxbcdt.split((inner, inner + 2 * d_state, heads), dim=-1)
    convolved = F.conv1d(
        xbc.transpose(1, 2),
        conv_weight[:, None],
        conv_bias,
        padding=taps - 1,
        groups=len(conv_bias),
    )
    xbc = F.silu(convolved[..., :length].transpose(1, 2))
    x_NLI, B_NLS, C_NLS = xbc.split((inner, d_state, d_state), dim=-1)
    x_NLHP = x_NLI.unflatten(-1, (heads, -1))
    dt_NLH = F.softplus(dt_NLH + dt_bias)
    decay_NLH = torch.exp(A * dt_NLH)
    state_NHPS = x_NLHP.new_zeros(*x_NLHP[:, 0].shape, d_state)
    y = torch.empty_like(x_NLHP)
    for t in range(length):
        # h_t = a_t h_{t-1} + dt_t x_t (outer) B_t;  y_t = h_t C_t
        update = (dt_NLH[:, t, :, None] * x_NLHP[:, t])[..., None] * B_NLS[:, t, None, None, :]
        state_NHPS = decay_NLH[:, t, :, None, None] * state_NHPS + update
        y[:, t] = torch.einsum("nhps,ns->nhp", state_NHPS, C_NLS[:, t])
    y_NLI = (y + D[:, None] * x_NLHP).flatten(2) * F.silu(z_NLI)
    return y_NLI * torch.rsqrt(y_NLI.square().mean(-1, keepdim=True) + eps)


def sequential(job: Job) -> tuple[Task, dict[str, Any]]:
    """A chunk through the network of one layer, and what the others would take."""
    if job.threads:
        torch.set_num_threads(job.threads)
    mamba2.scan_direction = scan_direction_stepwise  # of this process alone
    model, layers = _model(job)
    net = replace(model.network, layers=LAYERS)
    torch.manual_seed(SEED)
    network = BSMamba2(replace(model, network=net)).eval()
    clock = _Clock(network.layers)
    audio = model.audio
    samples = mixture(audio, job.seconds)
    sizes = {"n_fft": audio.n_fft, "hop": audio.hop}

    @torch.inference_mode()
    def task() -> dict[str, Any]:
        clock.elapsed_s, start = 0.0, time.perf_counter()
        spectrum = stft(samples, **sizes)
        real_view = torch.view_as_real(torch.from_numpy(spectrum))
        mask = torch.view_as_complex(network(real_view).contiguous()).numpy()
        istft(mask * spectrum, **sizes, length=samples.shape[-1])
        measured_s = time.perf_counter() - start
        layer_s = clock.elapsed_s / LAYERS
        return {
            "measured_s": measured_s,
            "layer_s": layer_s,
            "whole_s": measured_s + (layers - LAYERS) * layer_s,
        }

    return task, {
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "audio_s": job.seconds,
        "configuration": f"this network as trained, its scan a loop over time; {LAYERS} of "
        f"{layers} layers run",
        "extrapolation": f"seconds of the network of {LAYERS} layer, and {layers - LAYERS} times "
        "the clock around that layer",
        "parameters": None,
        "sample_rate": audio.sample_rate,
        "stems": [audio.target],
    }


def _model(job: Job) -> tuple[Any, int]:
    _, pairs = read_safetensors_header(Path(job.file))
    model = parse_metadata(pairs, Path(job.file)).model
    return model, model.network.layers


class _Clock:
    """Seconds inside some modules, while it is started anew by whoever reads it."""

    def __init__(self, layers: nn.ModuleList) -> None:
        self.elapsed_s, self._start = 0.0, 0.0
        for layer in layers:
            layer.register_forward_pre_hook(self._enter)
            layer.register_forward_hook(self._leave)

    def _enter(self, *_: object) -> None:
        self._start = time.perf_counter()

    def _leave(self, *_: object) -> None:
        self.elapsed_s += time.perf_counter() - self._start
