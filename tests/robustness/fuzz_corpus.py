"""The intact files that cases are made of: the smallest network in every form, and short songs."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soundfile
from fuzz_case import Corpus

from bsmamba2.cli import main
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
    "aac": ("adts", "aac"),
    "ac3": ("ac3", "ac3"),
}


def make_corpus(folder: Path) -> Corpus:
    """Writes all of it into a folder that exists; takes some seconds, most of them the export."""
    config = folder / "small.yaml"
    config.write_text(CONFIG)
    songs, run = folder / "songs", folder / "run"
    for split in ("train", "valid", "test"):
        _write_song(songs / split / "song")
    _bsm("train", "--config", config, "--data", songs, "--out", run, "--threads", 1, "--quiet")
    weights = folder / "small.safetensors"
    (run / "ema.safetensors").rename(weights)
    (run / "best.safetensors").unlink()
    onnx = folder / "small.onnx"
    _bsm("export", weights, "-o", onnx)
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
    """Writes what another process needs to open it."""
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


def _bsm(*arguments: object) -> None:
    """A command that must succeed; its prints are dropped."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()) as out,
    ):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as done:
            if done.code:
                raise RuntimeError(out.getvalue()) from done


def _write_song(folder: Path) -> None:
    folder.mkdir(parents=True)
    stems = load_config("bsmamba2").data.stems
    parts = [tone(RATE + RATE // 2, seed) / 4 for seed, _ in enumerate(stems)]
    for name, samples in zip((MIXTURE, *stems), (sum(parts), *parts), strict=True):
        soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="FLOAT")


def _audio(folder: Path) -> dict[str, bytes]:
    samples = tone(RATE // 3)
    for suffix, (kind, subtype) in _FORMATS.items():
        rate = 48_000 if subtype == "OPUS" else RATE
        with io.BytesIO() as file:
            soundfile.write(file, samples, rate, format=kind, subtype=subtype)
            (folder / f"song.{suffix}").write_bytes(file.getvalue())
    for suffix, (kind, codec) in _CONTAINERS.items():
        _encode(folder / f"song.{suffix}", kind, codec, samples)
    return {path.name[5:]: path.read_bytes() for path in sorted(folder.glob("song.*"))}


def _encode(path: Path, kind: str, codec: str, samples: np.ndarray) -> None:
    """Through FFmpeg's encoders, at 48 kHz, which all of them take."""
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
