"""Models over tracks: what is missing is separated and measured, what is there is read.

The unit of work is one track through one model in chunks of one length. Each ends in a file of
its own (`results.py`), and a failure ends only its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bsmamba2.data.tracks import MIXTURE, Track
from bsmamba2.errors import OptionError, failure_sentence
from bsmamba2.evaluation.measure import score_track, separate_minute
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
"""Called with what is being done, the seconds of audio that are done, and all of them."""
_VOICED_S = 10  # of a minute that is shown


@dataclass(frozen=True, kw_only=True)
class Model:
    """An engine and what it is called."""

    name: str
    engine: Engine
    sha256: str
    """Of the engine's file: together with the audio it decides the numbers."""

    @property
    def chunk_s(self) -> int:
        """Seconds that the engine was trained on."""
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

    stems: Sequence[str]
    """Stems that add up to a mixture; the engine's target is one of them."""
    overlap_s: float = 0.0
    """Seconds that neighbouring chunks share; 0 is the paper's hard concatenation."""
    batch: int = 1
    """Chunks that the engine gets at a time."""
    lengths_s: Sequence[int] = ()
    """Lengths of the pieces that are separated each alone."""


@dataclass(frozen=True)
class EvaluationFailure:
    """A unit of work that gave nothing."""

    model: str
    track: str
    error: str
    """One sentence."""


@dataclass(frozen=True, kw_only=True)
class ModelResults:
    """What came out for one model; tracks in the order given, those that failed left out."""

    model: Model
    tracks: list[TrackResult]
    by_length: dict[int, list[TrackResult]]
    """Seconds of a piece -> tracks."""


@dataclass(frozen=True, kw_only=True)
class Extreme:
    """A minute, and what it looks like."""

    title: str
    track: str
    minute: Minute
    pictures: dict[str, Picture]
    """Mixture, reference, then the estimate of each model."""


@dataclass(frozen=True)
class _Unit:
    """One track through one model in chunks of one length."""

    model: Model
    track: Track
    chunk_s: int
    overlap_s: float

    @property
    def title(self) -> str:
        """For the progress bar and for failures."""
        own = self.chunk_s == self.model.chunk_s
        return self.track.name + ("" if own else f" in pieces of {self.chunk_s} s")

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return self.track.frames / self.model.engine.metadata.model.audio.sample_rate

    def separator(self, batch: int) -> Separator:
        """Raises BsmError for an overlap, a batch or a chunk length that cannot be."""
        engine = self.model.engine
        if self.chunk_s != self.model.chunk_s:
            engine = _OtherChunks(engine, self.chunk_s)
        return Separator(engine, overlap_s=self.overlap_s, batch=batch)

    def result(
        self, settings: Settings, store: ResultStore, progress: Callable[[float], None]
    ) -> TrackResult:
        """From the store, or computed and stored."""
        engine, files = self.model.engine, _files(self.track, settings)
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
    """Engines by path, or 'default'; options and errors as `load_engine`.

    Raises:
        BsmError: One file named twice.
    """
    paths = [default_engine_path() if name == "default" else Path(name) for name in names]
    for name, path in zip(names, paths, strict=True):
        if [other.resolve() for other in paths].count(path.resolve()) > 1:
            raise OptionError(f"The model {name} is named twice: name each once.")
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
    """Scores of all models on all tracks; those that the store holds are not computed again.

    Raises:
        BsmError: Settings that fit no model, before any work.
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
    if model.target not in stems:
        raise OptionError(
            f"{model.name} estimates '{model.target}', but the data has {', '.join(stems)}: "
            "evaluate an engine of one of these."
        )
    if model.target != first.target:
        raise OptionError(
            f"{first.name} estimates '{first.target}' and {model.name} '{model.target}': "
            "evaluate them one by one."
        )


def _cuts(model: Model, settings: Settings) -> list[tuple[int, float]]:
    """(chunk, overlap) in s, the model's own first; a length that equals it is not done twice."""
    own = (model.chunk_s, settings.overlap_s)
    return list(dict.fromkeys([own, *((length, 0.0) for length in settings.lengths_s)]))


def _files(track: Track, settings: Settings) -> dict[str, Path]:
    return {name: track.stem(name) for name in (MIXTURE, *settings.stems)}


# --- pictures of the best and the worst minute ---


def find_extreme_minutes(results: Sequence[TrackResult]) -> list[tuple[TrackResult, Minute]]:
    """The minutes of best and worst SDR, or the only one.

    Minutes with less than 10 s of voice do not count, unless there are no others: their SDR says
    more about the silence.
    """
    minutes = [(result, minute) for result in results for minute in result.minutes]
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
    """The first model's best and worst minutes, separated once more by the models that have them.

    Pictures are kept in the store as well.

    Raises:
        BsmError: A file that could be read before cannot be now, or nothing can be written.
    """
    by_name = {track.name: track for track in tracks}
    minutes = find_extreme_minutes(results[0].tracks) if results else []
    titles = ["Best minute", "Worst minute"] if len(minutes) > 1 else ["The only minute"]
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
    """Mixture, reference and the model's estimate; from the store if they are there."""
    files = _files(unit.track, settings)
    about = [unit.model.sha256, unit.overlap_s, minute.start_s, minute.duration_s, ROWS, COLUMNS]
    key = store.key(files, {"pictures": about})
    pictures = store.load_pictures(unit.track.name, key)
    if pictures is None:
        signals, rate = separate_minute(unit.separator(settings.batch), files, minute)
        pictures = np.stack([draw_spectrogram(signal, rate) for signal in signals])
        store.save_pictures(unit.track.name, key, pictures)
    return list(pictures)
