"""Audio files of all kinds, whole and damaged, for the tests of reading and writing."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from bsmamba2.runtime.audio.reader import AudioReader

RATE = 44100
ENCODINGS = {
    "a.wav": "FLOAT",
    "b.wav": "PCM_16",
    "c.wav": "PCM_24",
    "d.wav": "DOUBLE",
    "a.flac": "PCM_16",
    "b.flac": "PCM_24",
    "a.mp3": "MPEG_LAYER_III",
    "a.ogg": "VORBIS",
    "a.aiff": "PCM_16",
}


def noise(n: int = 3 * RATE, channels: int = 2, *, level: float = 0.1) -> np.ndarray:
    """Returns noise (channels, n) in float32, which is different for each n."""
    samples = np.random.default_rng(n).standard_normal((channels, n)) * level
    return samples.astype(np.float32)


def tones(n: int, channels: int) -> np.ndarray:
    """Sine waves (channels, n), which lossy formats preserve."""
    phase = 2 * np.pi * np.arange(n) / RATE * np.array([[440], [1000]])[:channels]
    return (np.sin(phase) * 0.3).astype(np.float32)


def save(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples.T, rate, subtype=subtype or ENCODINGS.get(path.name))
    return path


def load(path: str | Path) -> np.ndarray:
    """Reads a file with libsndfile: (channels, n)."""
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


def read(path: Path) -> np.ndarray:
    """Reads a file with the package: (channels, n)."""
    with AudioReader(path) as reader:
        return np.concatenate(list(reader.blocks()), axis=1)


def damaged(path: Path, *, cut: float = 1, hole: bool = False) -> Path:
    """Truncates a file to the fraction `cut`, or overwrites its middle with random bytes."""
    content = bytearray(path.read_bytes()[: int(path.stat().st_size * cut)])
    if hole:
        middle = len(content) // 2
        content[middle : middle + 4000] = np.random.default_rng(0).bytes(4000)
    path.write_bytes(content)
    return path


def endless_rifx(n: int = 2000) -> bytes:
    """A big-endian WAV whose header was written before its length was known."""
    file = io.BytesIO()
    soundfile.write(file, noise(n).T, RATE, "FLOAT", "BIG", "WAV")
    head, data, samples = file.getvalue().partition(b"data")
    return head[:4] + bytes(4) + head[8:] + data + bytes(4) + samples[4:]


def encode(
    path: Path, codec: str, samples: np.ndarray, layout: str = "stereo", **metadata: str
) -> Path:
    """Writes a file of one track with PyAV, with the time base that other programs set."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        rate = 48_000 if codec == "libopus" else RATE  # Opus has no other
        container.metadata.update({"title": "A title", **metadata})
        mux(container, container.add_stream(codec, rate=rate, layout=layout), samples)
    return path


def mux(container: Any, stream: Any, samples: np.ndarray) -> None:
    """Encodes samples (channels, n) into a stream of an opened container."""
    import av

    layout = stream.codec_context.layout.name
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
    resampler = av.AudioResampler(stream.format, layout, stream.rate, stream.frame_size or 1024)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))
