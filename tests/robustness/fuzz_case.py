"""A case of the fuzzer: files in a folder, and the command that gets them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

SONG = "in/song.wav"
NAMES = "out/{track}/{stem}.{ext}"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One command in a folder of its own."""

    kind: str
    """What is attacked: "wav", "pickle", ..."""
    arguments: list[str]
    """Of `bsm`; paths are relative to the folder, and only `out` may be written to."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Intact files, made once, that cases are made of; nothing may write to them."""

    folder: Path
    onnx: Path
    """The smallest network, exported, in chunks of one second."""
    safetensors: Path
    """Its checkpoint."""
    config: Path
    """Its configuration."""
    songs: Path
    """A data folder with a song in each split."""
    run: Path
    """A finished training run on these songs."""
    audio: dict[str, bytes]
    """Suffix -> a song of a third of a second."""


Maker = Callable[[Random, Corpus, Path], Case]
"""Writes the files of a case into a folder that exists."""


def put(folder: Path, name: str, data: bytes | str) -> str:
    """Writes an input of a case; returns its path within the folder."""
    path = folder / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
    return f"in/{name}"


def infer(engine: str | Path, song: str, *more: str, out: str = NAMES) -> list[str]:
    """`bsm infer` of a song with an engine of the corpus or of the case."""
    chunks = ("--overlap", "0.1", "--threads", "1", "--device", "cpu")
    return ["infer", "--engine", str(engine), "-o", out, *chunks, *more, "--", song]
