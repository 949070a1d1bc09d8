"""Measures the moving average on whole tracks: uSDR of what `bsm infer --overlap 0` would write."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bsmamba2.data.tracks import MIXTURE, Track, read_segment
from bsmamba2.evaluation.metrics import usdr
from bsmamba2.evaluation.onsets import is_silent
from bsmamba2.formats.metadata import Metadata
from bsmamba2.runtime.engines.base import Spectrum
from bsmamba2.runtime.separation.separator import Separator
from bsmamba2.training.distributed import Processes

_EXCERPT_S = 10  # seconds of the first track for TensorBoard


class LiveEngine:
    """A float32 engine around the network being trained."""

    precision = "float32"
    batch: tuple[int, int, int] | None = None

    def __init__(self, network: nn.Module, metadata: Metadata, device: torch.device) -> None:
        """Takes the network by reference: later updates of its weights take effect."""
        self.metadata = metadata
        self.device = device.type
        self._network = network
        self._device = device

    def __call__(self, spectrum: Spectrum) -> Spectrum:
        """Returns the mask; see `bsmamba2.runtime.engines.Engine`."""
        # Both are set per thread; Triton launches its kernels on the current GPU.
        current = torch.cuda.device(self._device) if self.device == "cuda" else nullcontext()
        with torch.inference_mode(), current:
            mask = self._network(torch.from_numpy(spectrum).to(self._device))
        result: Spectrum = mask.contiguous().cpu().numpy()
        return result

    def describe(self) -> dict[str, Any]:
        """Returns backend and device."""
        return {"backend": "pytorch", "device": self.device}


def validate(
    network: nn.Module,
    metadata: Metadata,
    tracks: Sequence[Track],
    processes: Processes,
) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """Separates tracks with a network and measures them; processes share the tracks.

    Args:
        network: The network in evaluation mode, on the device of this process.
        metadata: Configuration of the network.
        tracks: Tracks to separate.
        processes: The processes, all of which must call this.

    Returns:
        `usdr` in dB, mean over tracks; `mixture_usdr`, the same with the mixture as the estimate,
        that is without any separation; `tracks`, uSDR by name; `silent`, the number of tracks
        that are not in the means, and have no uSDR (None), because their target or everything
        else is silent. Both means are None if no track is left. And, in the first process only, an
        excerpt of the first track: name -> (channels, samples).

    Raises:
        BsmError: A file cannot be read, or the network's mask is not finite.
    """
    audio = metadata.model.audio
    engine = LiveEngine(network, metadata, processes.device)
    separator = Separator(engine, overlap_s=0, batch=1)
    scores, baselines = [0.0] * len(tracks), [0.0] * len(tracks)
    excerpts: dict[str, NDArray[np.float32]] = {}
    for index in range(processes.rank, len(tracks), processes.count):
        track = tracks[index]
        mixture, target = (
            read_segment(track.stem(name), 0, track.frames) for name in (MIXTURE, audio.target)
        )
        estimate = separator.separate(mixture, audio.sample_rate)[audio.target]
        silent = any(is_silent(stem, audio.sample_rate) for stem in (target, mixture - target))
        scores[index] = math.nan if silent else usdr(target, estimate)
        baselines[index] = math.nan if silent else usdr(target, mixture)
        if index == 0:
            heard = slice(0, _EXCERPT_S * audio.sample_rate)
            songs = {"mixture": mixture, "target": target, "estimate": estimate}
            excerpts = {name: song[:, heard] for name, song in songs.items()}
    scores, baselines = processes.sum(scores), processes.sum(baselines)
    figures = [None if math.isnan(score) else score for score in scores]
    values = {
        "usdr": _mean(scores),
        "mixture_usdr": _mean(baselines),
        "tracks": {track.name: figure for track, figure in zip(tracks, figures, strict=True)},
        "silent": figures.count(None),
    }
    return values, excerpts


def _mean(scores: Sequence[float]) -> float | None:
    """Returns the mean of the numbers that are not NaN; None if all are."""
    kept = [score for score in scores if not math.isnan(score)]
    return math.fsum(kept) / len(kept) if kept else None
