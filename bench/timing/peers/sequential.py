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
    """A chunk through a checkpoint's network of one layer, and what the others would take."""
    if threads:
        torch.set_num_threads(threads)
    mamba2.scan_direction = scan_direction_reference  # of this process alone
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
        "configuration": f"this network as trained, its scan a loop over time; 1 of {more + 1} "
        "layers run",
        "extrapolation": f"seconds of the network of 1 layer, and {more} times the clock around "
        "that layer",
        "parameters": None,
        "sample_rate": audio.sample_rate,
        "stems": [audio.target],
    }
