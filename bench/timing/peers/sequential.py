"""BSMamba2 as a port without a chunked scan would run it: one time step after another.

Ports of Mamba2 to plain PyTorch keep the recurrence as written: every step reads and writes the
whole state of each sequence, (heads, channels, states); mamba_ssm's own `Mamba2.step` does so when
its kernels are missing. Here this recurrence replaces the scan in the network as trained, in
float32, with all sequences of a block at a time; everything else is the same PyTorch.

A chunk of the full-size network takes minutes that way. Therefore a network with one layer (a block
along time and one along bands) is run, and its layer is timed; all layers have the same shapes. The
time of a chunk is that of the one-layer network plus the layer's time for each further layer.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.timing.engines import mixture
from bench.timing.worker import Task
from bsmamba2.formats.metadata import parse_metadata
from bsmamba2.models import mamba2
from bsmamba2.models.bsmamba2 import BSMamba2
from bsmamba2.models.scan import scan_direction_reference
from bsmamba2.runtime.engines.stft import istft, stft
from bsmamba2.system.files import read_safetensors_header


def sequential(*, file: str, threads: int | None, seconds: float) -> tuple[Task, dict[str, Any]]:
    """Runs a chunk through one layer of a checkpoint's network; adds the time of the others."""
    if threads:
        torch.set_num_threads(threads)
    mamba2.scan_direction = scan_direction_reference  # in this process only
    _, pairs = read_safetensors_header(Path(file))
    model = parse_metadata(pairs, Path(file)).model
    more = model.network.layers - 1
    torch.manual_seed(0)
    network = BSMamba2(replace(model, network=replace(model.network, layers=1))).eval()
    (layer,) = network.layers
    compute = layer.forward
    clock = {"layer_s": 0.0}

    def timed(features: Tensor) -> Tensor:
        start = time.perf_counter()
        result: Tensor = compute(features)
        clock["layer_s"] = time.perf_counter() - start
        return result

    layer.forward = timed
    audio = model.audio
    samples = mixture(audio, seconds)
    sizes = {"n_fft": audio.n_fft, "hop": audio.hop}

    @torch.inference_mode()
    def task() -> dict[str, Any]:
        start = time.perf_counter()
        spectrum = stft(samples, **sizes)
        real_view = torch.view_as_real(torch.from_numpy(spectrum))
        mask = torch.view_as_complex(network(real_view).contiguous()).numpy()
        istft(mask * spectrum, **sizes, length=samples.shape[-1])
        measured_s = time.perf_counter() - start
        return {"measured_s": measured_s, "whole_s": measured_s + more * clock["layer_s"]} | clock

    return task, {
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "audio_s": seconds,
        "configuration": f"this network as trained, with the scan as a loop over time; 1 of "
        f"{more + 1} layers was run",
        "extrapolation": f"the time is that of the network with 1 layer plus {more} times that of "
        "the layer",
        "parameters": None,
        "sample_rate": audio.sample_rate,
        "stems": [audio.target],
    }
