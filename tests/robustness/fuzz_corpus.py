"""Cases, and the intact files they are made from: a tiny network in all formats, short songs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import numpy as np
import soundfile
from commands import timed

from bsmamba2.config.file import load_config
from bsmamba2.data.tracks import MIXTURE

CONFIG = """
base: tiny
audio: {chunk_s: 1, hop: 882}
network: {bands: [[205, 5]], d_model: 8, layers: 1, headdim: 8, d_state: 8, mask_expand: 1}
data: {items_per_epoch: 2}
loss: {stft_windows: [512], stft_hop: 441, stft_min_n_fft: 512}
training: {precision: float32, batch_size: 1, accumulation: 1, processes: 1, max_steps: 1,
  workers: 0, checkpoint_minutes: 60.0, keep_best: 1}
"""
RATE = 44_100
_SAMPLES = RATE // 3  # of a song
_FORMATS = {  # suffix -> format and subtype of libsndfile
    "wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "double.wav": ("WAVEX", "DOUBLE"),
    "ulaw.wav": ("WAV", "ULAW"),
    "adpcm.wav": ("WAV", "IMA_ADPCM"),
    "rf64": ("RF64", "PCM_24"),
    "w64": ("W64", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "24.flac": ("FLAC", "PCM_24"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "aiff": ("AIFF", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "au": ("AU", "FLOAT"),
}
_CONTAINERS = {  # suffix -> container and codec of FFmpeg
    "m4a": ("ipod", "aac"),
    "mp4": ("mp4", "aac"),
    "mka": ("matroska", "flac"),
    "webm": ("webm", "libopus"),
    "wma": ("asf", "wmav2"),
    "tta": ("tta", "tta"),
    "wv": ("wv", "wavpack"),
    "aac": ("adts", "aac"),
    "ac3": ("ac3", "ac3"),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One command in a folder of its own."""

    kind: str
    """What is attacked: "wav", "pickle", ..."""
    arguments: list[str]
    """Arguments of `bsm`; paths are relative to the folder, and only `out` may be written to."""
    seconds: float | None = None
    """Length of the stems, if it succeeds, within a quarter; None if any length is right."""
    intact: bool = False
    """Whether it must succeed, and no library has a reason to say anything."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Intact files that cases are made from; made once, never written to afterwards."""

    folder: Path
    onnx: Path
    """The smallest network, exported, with chunks of one second."""
    safetensors: Path
    """Its checkpoint."""
    config: Path
    """Its configuration."""
    songs: Path
    """A data folder with a song in each split."""
    run: Path
    """A finished training run on these songs."""
    audio: dict[str, bytes]
    """Suffix -> a song of a third of a second; see `song_seconds`."""


Maker = Callable[[Random, Corpus, Path], Case]
"""Writes the files of a case into an existing folder."""


def put(folder: Path, name: str, data: bytes | str, *, into: str = "in/") -> str:
    """Writes an input of a case; returns its path within the folder."""
    path = folder / f"{into}{name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
    return f"{into}{name}"


def song_seconds(suffix: str) -> float:
    """Length of a song of the corpus."""
    is_44_100 = suffix in _FORMATS and suffix != "opus"
    return _SAMPLES / (RATE if is_44_100 else 48_000)


def infer(engine: str | Path, song: str, *more: str, out: str = "") -> list[str]:
    """Arguments of `bsm infer` for a song, with an engine of the corpus or of the case."""
    chunks = ("--overlap", "0.1", "--threads", "1", "--device", "cpu")
    out = out or "out/{track}/{stem}.{ext}"
    return ["infer", "--engine", str(engine), "-o", out, *chunks, *more, "--", song]


def make_corpus(folder: Path) -> Corpus:
    """Makes a corpus in an existing folder; takes some seconds, most of them for the export."""
    config = folder / "small.yaml"
    config.write_text(CONFIG)
    songs, run = folder / "songs", folder / "run"
    for split in ("train", "valid", "test"):
        _write_song(songs / split / "song")
    options = ["--data", str(songs), "--out", str(run), "--threads", "1", "--quiet"]
    timed(["train", "--config", str(config), *options], folder)
    weights, onnx = folder / "small.safetensors", folder / "small.onnx"
    (run / "ema.safetensors").rename(weights)
    (run / "best.safetensors").unlink()
    timed(["export", str(weights), "-o", str(onnx)], folder)
    return Corpus(
        folder=folder,
        onnx=onnx,
        safetensors=weights,
        config=config,
        songs=songs,
        run=run,
        audio=_audio(folder),
    )


def keep_corpus(corpus: Corpus) -> None:
    """Writes what another process needs to open a corpus."""
    paths = {name: str(value) for name, value in asdict(corpus).items() if name != "audio"}
    (corpus.folder / "corpus.json").write_text(json.dumps(paths))


def open_corpus(folder: Path) -> Corpus:
    """The corpus that `keep_corpus` has written into a folder."""
    paths = json.loads((folder / "corpus.json").read_text())
    audio = {path.name[5:]: path.read_bytes() for path in sorted(folder.glob("song.*"))}
    return Corpus(audio=audio, **{name: Path(path) for name, path in paths.items()})


def tone(samples: int, seed: int = 0) -> np.ndarray:
    """A tone in noise, (samples, 2), float32."""
    noise = 0.05 * np.random.default_rng(seed).standard_normal((samples, 2))
    return (noise + 0.2 * np.sin(np.arange(samples)[:, None] / 30)).astype(np.float32)


def _write_song(folder: Path) -> None:
    folder.mkdir(parents=True)
    stems = load_config("bsmamba2").data.stems
    parts = [tone(RATE + RATE // 2, seed) / 4 for seed, _ in enumerate(stems)]
    for name, samples in zip((MIXTURE, *stems), (sum(parts), *parts), strict=True):
        soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="FLOAT")


def _audio(folder: Path) -> dict[str, bytes]:
    samples = tone(_SAMPLES)
    for suffix, (kind, subtype) in _FORMATS.items():
        rate = 48_000 if subtype == "OPUS" else RATE
        with io.BytesIO() as file:
            soundfile.write(file, samples, rate, format=kind, subtype=subtype)
            (folder / f"song.{suffix}").write_bytes(file.getvalue())
    for suffix, (kind, codec) in _CONTAINERS.items():
        _encode(folder / f"song.{suffix}", kind, codec, samples)
    return {path.name[5:]: path.read_bytes() for path in sorted(folder.glob("song.*"))}


def _encode(path: Path, kind: str, codec: str, samples: np.ndarray) -> None:
    """Encodes with FFmpeg at 48 kHz, which all of its encoders take."""
    import av

    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=48_000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(samples.T.copy(), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 48_000, 0
        stream.bit_rate = 128_000
        stream.codec_context.open()
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(
            format=stream.codec_context.format, layout="stereo", rate=48_000, frame_size=size
        )
        for part in (*resampler.resample(frame), *resampler.resample(None), None):
            container.mux(stream.encode(part))
