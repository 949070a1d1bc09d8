"""Engines made of functions or short files, for tests of everything around an engine."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bsmamba2.config.file import load_config
from bsmamba2.config.model import ModelConfig
from bsmamba2.formats.metadata import Metadata, Provenance
from bsmamba2.runtime.engines.base import Spectrum


def small_metadata(chunk_s: int = 1) -> Metadata:
    """Metadata of the tiny model, with short chunks."""
    model = load_config("tiny").model
    audio = replace(model.audio, chunk_s=chunk_s)
    return Metadata(
        model=ModelConfig(audio=audio, network=model.network),
        provenance=Provenance(source="a test", trained=False),
    )


class FunctionEngine:
    """An engine made of a function of the spectrum; records the spectra's shapes."""

    device = "cpu"
    precision = "float32"
    batch = None

    def __init__(self, function: Callable[[Spectrum], Any], chunk_s: int = 1) -> None:
        self.metadata = small_metadata(chunk_s)
        self.shapes: list[tuple[int, ...]] = []
        self._function = function

    def __call__(self, spectrum: Spectrum) -> Spectrum:
        assert spectrum.dtype == np.float32
        assert spectrum.flags.c_contiguous
        self.shapes.append(spectrum.shape)
        return self._function(spectrum)

    def describe(self) -> dict[str, Any]:
        return {"backend": "function"}


def real_mask(value: float) -> Callable[[Spectrum], Spectrum]:
    """A mask with the same real number in every bin."""

    def mask(spectrum: Spectrum) -> Spectrum:
        values = np.zeros_like(spectrum)
        values[..., 0] = value
        return values

    return mask


def random_mask(scale: float = 1.0) -> Callable[[Spectrum], Spectrum]:
    """A mask of random complex numbers, the same in every chunk."""

    def mask(spectrum: Spectrum) -> Spectrum:
        values = np.random.default_rng(0).standard_normal(spectrum.shape[1:], np.float32)
        return np.broadcast_to(values * np.float32(scale), spectrum.shape)

    return mask


def with_chunks(source: Path, chunk_s: int, path: Path) -> Path:
    """Copies a model and sets another chunk length of one digit, which its graph takes as well."""
    content, count = re.subn(rb'"chunk_s": \d,', b'"chunk_s": %d,' % chunk_s, source.read_bytes())
    assert count == 1
    path.write_bytes(content)
    return path
