"""Training mixtures: each stem is drawn independently, sometimes silenced, scaled and summed.

Every item is a pure function of (seed, index), where index counts items since training began. The
items are therefore the same for any number of workers and processes, and in a resumed run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from bsmamba2.config.model import AudioConfig
from bsmamba2.config.training import DataConfig
from bsmamba2.data.augment import augment, check_augmentations
from bsmamba2.data.salience import Salience, SalientStem
from bsmamba2.data.tracks import Track, read_segment
from bsmamba2.errors import DataError

_ATTEMPTS = 8  # unreadable draws of a stem before it is left out of an item


class TrainingBatch(NamedTuple):
    """One training item, or several stacked for a forward pass."""

    mixture: Tensor
    """float32 ([batch,] 2, samples), the sum of the scaled stems."""
    target: Tensor
    """The stem that the network estimates, as scaled for the mixture; same shape."""
    sources: tuple[str, ...]
    """Where the audible stems come from: "track/stem@seconds"."""
    unreadable: tuple[str, ...]
    """A sentence for each draw that could not be read and was repeated."""


class _Draw(NamedTuple):
    track: Track
    start: int


class TrainingMixtures(Dataset[TrainingBatch]):
    """An endless dataset of mixtures: `items[index]` for any index >= 0; it has no length."""

    def __init__(
        self, salience: Salience, data: DataConfig, audio: AudioConfig, *, seed: int
    ) -> None:
        """Takes the result of `find_salient`; reads no audio.

        Args:
            salience: Salient segments of every stem.
            data: How to mix.
            audio: Length of an item, name of the target.
            seed: Seed of all draws, at least 0.

        Raises:
            DataError: The target is not one of the stems.
            MissingExtraError: A library for an augmentation is not installed.
        """
        check_augmentations(data)
        if audio.target not in data.stems:
            raise DataError(
                f"audio.target '{audio.target}' is not one of data.stems: name one of them."
            )
        self._salience = salience
        self._data = data
        self._audio = audio
        self._seed = seed

    def __getitem__(self, index: int) -> TrainingBatch:
        """Returns item number `index`, counted since training began."""
        data, audio = self._data, self._audio
        rng = self._rng(index)
        silent = rng.random(len(data.stems)) < data.silent_probability
        gains = rng.uniform(*data.gain, size=len(data.stems)).astype(np.float32)
        coherent = rng.random() < data.coherent_probability
        mixture = np.zeros((audio.channels, audio.chunk_samples), dtype=np.float32)
        target = np.zeros_like(mixture)
        sources: list[str] = []
        unreadable: list[str] = []
        for number, stem in enumerate(data.stems):
            if silent[number]:
                continue
            found = self._read(index, number, coherent, unreadable)
            if found is None:
                continue
            samples, draw = found
            samples = gains[number] * samples
            mixture += samples
            if stem == audio.target:
                target = samples
            sources.append(f"{draw.track.name}/{stem}@{draw.start / audio.sample_rate:.3f}")
        return TrainingBatch(
            mixture=torch.from_numpy(mixture),
            target=torch.from_numpy(target),
            sources=tuple(sources),
            unreadable=tuple(unreadable),
        )

    def _rng(self, *numbers: int) -> np.random.Generator:
        """Returns the generator of an item (index) or a draw in it (index, stream, attempt)."""
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=numbers))

    def _read(
        self, index: int, number: int, coherent: bool, unreadable: list[str]
    ) -> tuple[NDArray[np.float32], _Draw] | None:
        """Draws and reads a segment of stem `number`; None if all attempts are unreadable."""
        stem = self._data.stems[number]
        for attempt in range(_ATTEMPTS):
            # Stems of a coherent item share a generator, hence track, position and augmentations.
            rng = self._rng(index, 0 if coherent else 1 + number, attempt)
            draw = _draw(self._salience[self._audio.target if coherent else stem], rng)
            try:
                samples = self._segment(draw, stem)
            except DataError as error:
                unreadable.append(str(error))
                continue
            return augment(samples, rng, self._data, self._audio.sample_rate), draw
        return None

    def _segment(self, draw: _Draw, stem: str) -> NDArray[np.float32]:
        """Reads float32 (channels, chunk_samples), padded with zeros where the track ends."""
        wanted = self._audio.chunk_samples
        frames = min(wanted, draw.track.frames - draw.start)
        samples = read_segment(draw.track.stem(stem), draw.start, frames)
        if samples.shape[0] != self._audio.channels:
            raise DataError(
                f"{draw.track.stem(stem)} has {samples.shape[0]} channels instead of "
                f"{self._audio.channels}: replace it."
            )
        return samples if frames == wanted else np.pad(samples, ((0, 0), (0, wanted - frames)))


def collate(items: Sequence[TrainingBatch]) -> TrainingBatch:
    """Stacks items into a batch."""
    return TrainingBatch(
        mixture=torch.stack([item.mixture for item in items]),
        target=torch.stack([item.target for item in items]),
        sources=tuple(source for item in items for source in item.sources),
        unreadable=tuple(sentence for item in items for sentence in item.unreadable),
    )


def _draw(places: Sequence[SalientStem], rng: np.random.Generator) -> _Draw:
    """Draws a track, then one of its segments, both uniformly."""
    place = places[int(rng.integers(len(places)))]
    return _Draw(place.track, int(place.starts[rng.integers(len(place.starts))]))
