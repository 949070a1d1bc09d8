"""Evaluates models on tracks; existing results are reused, missing ones are computed.

A unit of work is one track, separated by one model in chunks of one length. The result of each unit
is a file of its own (`results.py`), and a failure affects no other unit.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bsmamba2.data.tracks import MIXTURE, Track
from bsmamba2.errors import OptionError, failure_sentence
from bsmamba2.evaluation.measure import score_track, separate_minute
from bsmamba2.evaluation.references import reference_files
from bsmamba2.evaluation.results import Minute, ResultStore, TrackResult
from bsmamba2.formats.metadata import Metadata
from bsmamba2.runtime.audio.pictures import COLUMNS, ROWS, Picture, draw_spectrogram
from bsmamba2.runtime.engines import (
    Engine,
    EngineOptions,
    Spectrum,
    default_engine_path,
    load_engine,
)
from bsmamba2.runtime.separation.separator import Separator
from bsmamba2.system.files import sha256_file

logger = logging.getLogger(__name__)

Progress = Callable[[str, float, float], None]
"""Called with the title of the current work, the seconds of audio done, and their total."""
_VOICED_S = 10  # least seconds of vocals in a minute that the report shows


@dataclass(frozen=True, kw_only=True)
class Model:
    """An engine and its name."""

    name: str
    engine: Engine
    sha256: str
    """SHA-256 of the engine's file."""

    @property
    def chunk_s(self) -> int:
        """Length in seconds of the chunks that the engine was trained on."""
        return self.engine.metadata.model.audio.chunk_s

    @property
    def target(self) -> str:
        """The stem that the engine estimates."""
        return self.engine.metadata.model.audio.target

    @property
    def trained(self) -> bool:
        """False for random weights."""
        return self.engine.metadata.provenance.trained


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the models separate."""

    stems: Sequence[str] = ()
    """Stems that add up to a mixture, the engine's target among them; if none, each song's."""
    trained_stems: Sequence[str] = ()
    """Stems to prefer where `stems` is empty and a song has these."""
    overlap_s: float = 0.0
    """Seconds by which neighbouring chunks overlap; 0, as in the paper, concatenates them."""
    batch: int = 1
    """Chunks per call of the engine."""
    lengths_s: Sequence[int] = ()
    """Lengths of the pieces into which tracks are also cut, each piece separated on its own."""


@dataclass(frozen=True)
class EvaluationFailure:
    """A unit of work that failed."""

    model: str
    track: str
    error: str
    """One sentence."""


@dataclass(frozen=True, kw_only=True)
class ModelResults:
    """The results of one model, in the order of the tracks, without those that failed."""

    model: Model
    tracks: list[TrackResult]
    by_length: dict[int, list[TrackResult]]
    """Length of the pieces in seconds -> tracks."""


@dataclass(frozen=True, kw_only=True)
class Extreme:
    """The best or the worst minute, with its spectrograms."""

    title: str
    track: str
    minute: Minute
    pictures: dict[str, Picture]
    """Spectrograms of the mixture, the reference and the estimate of each model."""


@dataclass(frozen=True)
class _Unit:
    """One track, separated by one model in chunks of one length."""

    model: Model
    track: Track
    chunk_s: int
    overlap_s: float

    @property
    def title(self) -> str:
        """Name for the progress bar and for failures."""
        own = self.chunk_s == self.model.chunk_s
        return self.track.name + ("" if own else f" in pieces of {self.chunk_s} s")

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return self.track.frames / self.model.engine.metadata.model.audio.sample_rate

    def files(self, settings: Settings) -> dict[str, Path]:
        """The song's files; raises DataError if some are missing."""
        named, trained = settings.stems, settings.trained_stems
        return reference_files(self.track, self.model.target, named=named, trained=trained)

    def separator(self, batch: int) -> Separator:
        """Makes the separator; raises BsmError for an invalid overlap, batch or chunk length."""
        engine = self.model.engine
        if self.chunk_s != self.model.chunk_s:
            engine = _OtherChunks(engine, self.chunk_s)
        return Separator(engine, overlap_s=self.overlap_s, batch=batch)

    def result(
        self, settings: Settings, store: ResultStore, progress: Callable[[float], None]
    ) -> TrackResult:
        """Returns the stored result, or computes and stores it."""
        engine, files = self.model.engine, self.files(settings)
        parameters = {
            "engine": self.model.sha256,
            "device": engine.device,
            "precision": engine.precision,
            "chunk_s": self.chunk_s,
            "overlap_s": self.overlap_s,
        }
        key = store.key(files, parameters)
        result = store.load(self.track.name, key)
        if result is None:
            result = score_track(
                self.separator(settings.batch),
                self.track.name,
                files,
                chunk_s=self.chunk_s,
                overlap_s=self.overlap_s,
                progress=progress,
            )
            store.save(key, result)
        return result


class _OtherChunks:
    """An engine that is given chunks of another length than it was trained on."""

    def __init__(self, engine: Engine, chunk_s: int) -> None:
        model = engine.metadata.model
        audio = replace(model.audio, chunk_s=chunk_s)
        self.metadata: Metadata = replace(engine.metadata, model=replace(model, audio=audio))
        self.device, self.precision, self.batch = engine.device, engine.precision, engine.batch
        self._engine = engine

    def __call__(self, spectrum: Spectrum) -> Spectrum:
        return self._engine(spectrum)

    def describe(self) -> dict[str, Any]:
        return self._engine.describe()


def load_models(names: Sequence[str], options: EngineOptions | None = None) -> list[Model]:
    """Loads engines by path, or 'default'; options and errors as for `load_engine`.

    Raises:
        BsmError: A file is named twice.
    """
    paths = [default_engine_path() if name == "default" else Path(name) for name in names]
    for name, path in zip(names, paths, strict=True):
        if [other.resolve() for other in paths].count(path.resolve()) > 1:
            raise OptionError(f"The model {name} is named twice: name each model once.")
    return [
        Model(name=name, engine=load_engine(name, options), sha256=sha256_file(path))
        for name, path in zip(names, paths, strict=True)
    ]


def evaluate(
    models: Sequence[Model],
    tracks: Sequence[Track],
    settings: Settings,
    store: ResultStore,
    progress: Progress = lambda *_: None,
) -> tuple[list[ModelResults], list[EvaluationFailure]]:
    """Measures all models on all tracks; results that are in the store are not computed again.

    Raises:
        BsmError: The settings do not fit a model; raised before any work.
    """
    for model in models:
        _check_target(model, models[0], settings.stems)
    units = [
        _Unit(model, track, *cut)
        for model in models
        for track in tracks
        for cut in _cuts(model, settings)
    ]
    for unit in units:
        unit.separator(settings.batch)
    found: dict[_Unit, TrackResult] = {}
    failures: list[EvaluationFailure] = []
    total, before = sum(unit.duration_s for unit in units), 0.0

    def tell(title: str, before: float, seconds: float) -> None:
        progress(title, before + seconds, total)

    for unit in units:
        tell(unit.title, before, 0)
        try:
            found[unit] = unit.result(settings, store, partial(tell, unit.title, before))
        except Exception as error:
            logger.debug("%s failed", unit.title, exc_info=True)
            sentence = failure_sentence(error, "eval")
            failures.append(EvaluationFailure(unit.model.name, unit.title, sentence))
        before += unit.duration_s
        tell(unit.title, before, 0)

    def pick(model: Model, chunk_s: int, overlap_s: float) -> list[TrackResult]:
        units = (_Unit(model, track, chunk_s, overlap_s) for track in tracks)
        return [found[unit] for unit in units if unit in found]

    return [
        ModelResults(
            model=model,
            tracks=pick(model, model.chunk_s, settings.overlap_s),
            by_length={length: pick(model, length, 0.0) for length in settings.lengths_s},
        )
        for model in models
    ], failures


def _check_target(model: Model, first: Model, stems: Sequence[str]) -> None:
    if stems and model.target not in stems:
        raise OptionError(
            f"{model.name} estimates '{model.target}', but --stems names {', '.join(stems)}: name "
            f"{model.target} and what adds up to the rest."
        )
    if model.target != first.target:
        raise OptionError(
            f"{first.name} estimates '{first.target}' and {model.name} '{model.target}': "
            "evaluate them separately."
        )


def _cuts(model: Model, settings: Settings) -> list[tuple[int, float]]:
    """Returns (chunk, overlap) in seconds, the model's own chunk first, without duplicates."""
    own = (model.chunk_s, settings.overlap_s)
    return list(dict.fromkeys([own, *((length, 0.0) for length in settings.lengths_s)]))


# --- pictures of the best and the worst minute ---


def find_extreme_minutes(results: Sequence[TrackResult]) -> list[tuple[TrackResult, Minute]]:
    """Finds the minutes of best and worst SDR, or the only one.

    Minutes with less than 10 s of vocals are left out unless there are no others, because their
    SDR depends mostly on the silence; those without any, which have no SDR, are always left out.
    """
    minutes = [(r, m) for r in results for m in r.minutes if not math.isnan(m.sdr)]
    voiced = [(r, m) for r, m in minutes if m.voiced_s >= min(_VOICED_S, int(m.duration_s))]
    ordered = sorted(voiced or minutes, key=lambda pair: -pair[1].sdr)
    return [ordered[0], ordered[-1]] if len(ordered) > 1 else ordered


def picture_extremes(
    results: Sequence[ModelResults],
    tracks: Sequence[Track],
    settings: Settings,
    store: ResultStore,
    progress: Progress = lambda *_: None,
) -> list[Extreme]:
    """Draws the first model's best and worst minutes, as separated by every model.

    The minutes are separated again, unless their pictures are in the store, and then stored.

    Raises:
        BsmError: A file can no longer be read, or the pictures cannot be written.
    """
    by_name = {track.name: track for track in tracks}
    minutes = find_extreme_minutes(results[0].tracks) if results else []
    titles = ["Best minute", "Worst minute"] if len(minutes) > 1 else ["Example minute"]
    extremes = []
    for title, (result, minute) in zip(titles, minutes, strict=False):
        progress(f"{title} of {result.track}", 0, minute.duration_s)
        track = by_name[result.track]
        pictures: dict[str, Picture] = {}
        for model in (r.model for r in results if result.track in {t.track for t in r.tracks}):
            unit = _Unit(model, track, model.chunk_s, settings.overlap_s)
            names = [MIXTURE, f"{model.target}, reference", f"{model.target}, {model.name}"]
            pictures |= zip(names, _pictures(unit, minute, settings, store), strict=True)
        extremes.append(Extreme(title=title, track=track.name, minute=minute, pictures=pictures))
    return extremes


def _pictures(
    unit: _Unit, minute: Minute, settings: Settings, store: ResultStore
) -> Sequence[Picture]:
    """Returns spectrograms of mixture, reference and estimate, from the store if possible."""
    files = unit.files(settings)
    about = [unit.model.sha256, unit.overlap_s, minute.start_s, minute.duration_s, ROWS, COLUMNS]
    key = store.key(files, {"pictures": about})
    pictures = store.load_pictures(unit.track.name, key)
    if pictures is None:
        signals, rate = separate_minute(unit.separator(settings.batch), files, minute)
        pictures = np.stack([draw_spectrogram(signal, rate) for signal in signals])
        store.save_pictures(unit.track.name, key, pictures)
    return list(pictures)
