"""The audio on which engines are compared: a chunk of the user's song, or a made-up mixture."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bsmamba2.config.model import AudioConfig
from bsmamba2.errors import AudioError
from bsmamba2.evaluation.onsets import is_silent
from bsmamba2.runtime.audio.reader import AudioReader
from bsmamba2.runtime.audio.resampling import resample
from bsmamba2.runtime.audio.samples import Samples
from bsmamba2.runtime.audio.source_file import SourceFile
from bsmamba2.runtime.separation.chunking import Chunking

_STEMS, _VOCALS = ".stem.mp4", 4  # Native Instruments' stem files, whose fifth track is vocals
_SILENT_PEAK = 1e-4  # -80 dBFS: quieter audio is of no use for a comparison


@dataclass(frozen=True, kw_only=True)
class ReferenceExcerpt:
    """A mixture with the sample rate and channels that an engine takes."""

    name: str
    """Description for reports."""
    mixture: Samples
    """(channels, n)."""
    voice: Samples | None
    """The true target, of the same shape; None if it is not known."""
    chunks: NDArray[np.float32]
    """The mixture in chunks, (chunks, channels, samples of a chunk), padded with zeros."""


def load_reference_excerpt(path: str | Path | None, audio: AudioConfig) -> ReferenceExcerpt:
    """Loads the excerpt, which is the same on every machine.

    Args:
        path: A song, whose loudest chunk is taken, with the true vocals if the song is a
            `.stem.mp4` and they are not silent there; None for `fixed_mixture`.
        audio: The engine's audio settings.

    Raises:
        BsmError: The file is missing, is not audio, or is silent.
    """
    if path is None:
        return _excerpt("a made-up mixture", fixed_mixture(audio, audio.chunk_samples), None, audio)
    path = Path(path)
    start, mixture = _loudest_chunk(path, audio)
    seconds = mixture.shape[1] / audio.sample_rate
    name, voice = f"the loudest {seconds:.3g} s of {path.name}", None
    if path.name.endswith(_STEMS) and audio.target == "vocals":
        vocals, rate = _decode_stream(path, _VOCALS)
        whole = np.concatenate(list(_fitted([vocals], rate, audio)), axis=1)
        voice = whole[:, start : start + mixture.shape[1]]
        if voice.shape != mixture.shape:
            raise AudioError(f"The vocals of {path} end before its mixture: name another song.")
        if is_silent(voice, audio.sample_rate):
            voice = None  # a uSDR would say nothing
        else:
            name += " and its voice"
    return _excerpt(name, mixture, voice, audio)


def fixed_mixture(audio: AudioConfig, samples: int) -> Samples:
    """Makes up a mixture that is the same on every machine: (channels, samples).

    It has gliding harmonics, noise and a second of digital silence, at musical levels: errors of an
    engine show on such input more clearly than on white noise.
    """
    time_s = np.arange(samples) / audio.sample_rate
    random = np.random.default_rng(0)
    channels = []
    for channel in range(audio.channels):
        pitch = 220.0 * 2 ** (0.25 * np.sin(2 * np.pi * (0.3 + 0.1 * channel) * time_s))
        phase = 2 * np.pi * np.cumsum(pitch) / audio.sample_rate
        voice = sum(np.sin(k * phase) / k for k in range(1, 24))
        beat = np.exp(-8 * (time_s * (2 + channel) % 1))
        noise = random.standard_normal(samples) * beat
        mixture = 0.1 * voice + 0.05 * noise
        mixture[(time_s > 3) & (time_s < 4)] = 0
        channels.append(mixture)
    return np.array(channels, np.float32)


def _excerpt(
    name: str, mixture: Samples, voice: Samples | None, audio: AudioConfig
) -> ReferenceExcerpt:
    chunks = [chunk for chunk, _ in Chunking(audio.chunk_samples, 0).split([mixture])]
    return ReferenceExcerpt(name=name, mixture=mixture, voice=voice, chunks=np.stack(chunks))


def _loudest_chunk(path: Path, audio: AudioConfig) -> tuple[int, Samples]:
    """Returns start and samples of the loudest of the consecutive chunks, the last not padded."""
    loudest, most, start, done = None, 0.0, 0, 0
    with AudioReader(path) as reader:
        blocks = _fitted(reader.blocks(), reader.sample_rate, audio)
        for chunk, count in Chunking(audio.chunk_samples, 0).split(blocks):
            energy = float(np.vdot(chunk, chunk))
            if energy > most:
                loudest, most, start = chunk[:, :count], energy, done
            done += count
    if loudest is None or np.abs(loudest).max() < _SILENT_PEAK:
        raise AudioError(f"{path} is silent: name a song with music in it.")
    if loudest.shape[1] <= audio.n_fft:
        raise AudioError(f"{path} is shorter than one STFT window: name a longer song.")
    return start, loudest


def _fitted(blocks: Iterable[Samples], rate: int, audio: AudioConfig) -> Iterator[Samples]:
    """Resamples to the engine's rate; copies mono to all channels, or mixes down to mono."""
    widened = (
        block
        if len(block) == audio.channels
        else np.repeat(block.mean(axis=0, keepdims=True), audio.channels, axis=0)
        for block in blocks
    )
    return resample(widened, channels=audio.channels, from_rate=rate, to_rate=audio.sample_rate)


def _decode_stream(path: Path, stream: int) -> tuple[Samples, int]:
    """Decodes one audio stream, (channels, samples) float32, and its sample rate; needs PyAV.

    Raises:
        AudioError: There is no such stream, or it is damaged.
    """
    import av

    from bsmamba2.runtime.audio.decoding import (
        no_audio,  # imported late: it needs soundfile, which bench/gpu/measure.py does without
        open_container,
    )

    try:
        with SourceFile(path) as file, open_container(file) as container:
            if len(container.streams.audio) <= stream:
                raise AudioError(f"{path} has no audio track {stream + 1}: name another song.")
            rate = int(container.streams.audio[stream].rate)
            resampler = av.AudioResampler(format="fltp")
            parts = itertools.chain.from_iterable(
                map(resampler.resample, container.decode(audio=stream))
            )
            samples = np.concatenate([part.to_ndarray() for part in parts], axis=1)
    except (av.FFmpegError, ValueError) as error:  # ValueError: the stream has no frames
        raise no_audio(str(path)) from error
    return samples, rate
