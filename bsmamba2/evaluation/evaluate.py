"""Models over tracks: what is missing is separated and measured, what is there is read.

The unit of work is one track through one model in chunks of one length. Each ends in a file of
its own (`results.py`), and a failure ends only its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsmamba2.errors import OptionError, failure_sentence
from bsmamba2.evaluation.measure import MIXTURE, score_track
from bsmamba2.evaluation.results import ResultStore, TrackResult
from bsmamba2.formats.metadata import Metadata
from bsmamba2.runtime.engines import (
    Engine,
    EngineOptions,
    Spectrum,
    default_engine_path,
    load_engine,
)
from bsmamba2.runtime.separation.separator import Separator
from bsmamba2.system.files import sha256_file

if TYPE_CHECKING:
    from bsmamba2.data.tracks import Track

logger = logging.getLogger(__name__)

Progress = Callable[[str, float, float], None]
"""Called with what is being done, the seconds of audio that are done, and all of them."""


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


@dataclass(frozen=True)
class _Pass:
    """How a track is cut."""

    chunk_s: int
    overlap_s: float


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """One track through one model in chunks of one length."""

    model: Model
    track: Track
    cut: _Pass

    @property
    def parameters(self) -> dict[str, Any]:
        """What the numbers depend on, beside the files of the track."""
        engine = self.model.engine
        return {
            "engine": self.model.sha256,
            "device": engine.device,
            "precision": engine.precision,
            "chunk_s": self.cut.chunk_s,
            "overlap_s": self.cut.overlap_s,
        }

    @property
    def title(self) -> str:
        """For the progress bar and for failures."""
        own = self.cut.chunk_s == self.model.chunk_s
        return self.track.name + ("" if own else f" in pieces of {self.cut.chunk_s} s")

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return self.track.frames / self.model.engine.metadata.model.audio.sample_rate


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
    models: list[Model] = []
    for name, path in zip(names, paths, strict=True):
        engine = load_engine(name, options)
        models.append(Model(name=name, engine=engine, sha256=sha256_file(path)))
    return models


def make_separator(
    model: Model, *, chunk_s: int | None = None, overlap_s: float = 0.0, batch: int = 1
) -> Separator:
    """The model's separator, in chunks of its own length or of another.

    Raises:
        BsmError: An overlap, a batch or a chunk length that cannot be.
    """
    same = chunk_s in (None, model.chunk_s)
    engine = model.engine if same else _OtherChunks(model.engine, chunk_s or 0)
    return Separator(engine, overlap_s=overlap_s, batch=batch)


def track_files(track: Track, stems: Sequence[str]) -> dict[str, Path]:
    """Mixture and stems of a track -> file."""
    return {name: track.stem(name) for name in (MIXTURE, *stems)}


def evaluate(
    models: Sequence[Model],
    tracks: Sequence[Track],
    settings: Settings,
    store: ResultStore,
    progress: Progress | None = None,
) -> tuple[list[ModelResults], list[EvaluationFailure]]:
    """Scores of all models on all tracks; those that the store holds are not computed again.

    Raises:
        BsmError: Settings that fit no model, before any work.
    """
    for model in models:
        _check_target(model, models[0], settings.stems)
        for cut in _passes(model, settings):
            make_separator(model, chunk_s=cut.chunk_s, overlap_s=cut.overlap_s)
    units = [
        _Unit(model=model, track=track, cut=cut)
        for model in models
        for track in tracks
        for cut in _passes(model, settings)
    ]
    found: dict[tuple[str, str, _Pass], TrackResult] = {}
    failures: list[EvaluationFailure] = []
    for unit, tell in _told(units, progress):
        try:
            result = _result(unit, settings, store, tell)
        except Exception as error:
            logger.debug("%s failed", unit.title, exc_info=True)
            failures.append(
                EvaluationFailure(unit.model.name, unit.title, failure_sentence(error, "eval"))
            )
        else:
            found[unit.model.name, unit.track.name, unit.cut] = result

    def pick(model: Model, cut: _Pass) -> list[TrackResult]:
        results = (found.get((model.name, track.name, cut)) for track in tracks)
        return [result for result in results if result is not None]

    return [
        ModelResults(
            model=model,
            tracks=pick(model, _passes(model, settings)[0]),
            by_length={length: pick(model, _Pass(length, 0.0)) for length in settings.lengths_s},
        )
        for model in models
    ], failures


def _check_target(model: Model, first: Model, stems: Sequence[str]) -> None:
    target, other = (m.engine.metadata.model.audio.target for m in (model, first))
    if target not in stems:
        raise OptionError(
            f"{model.name} estimates '{target}', but the data has {', '.join(stems)}: "
            "evaluate an engine of one of these."
        )
    if target != other:
        raise OptionError(
            f"{first.name} estimates '{other}' and {model.name} '{target}': "
            "evaluate them one by one."
        )


def _passes(model: Model, settings: Settings) -> list[_Pass]:
    """The model's own way first; a length that equals it is not separated twice."""
    own = _Pass(model.chunk_s, settings.overlap_s)
    return list(dict.fromkeys([own, *(_Pass(length, 0.0) for length in settings.lengths_s)]))


def _told(
    units: Sequence[_Unit], progress: Progress | None
) -> Iterator[tuple[_Unit, Callable[[float], None]]]:
    """Each unit, and a function that tells how many of its seconds are done."""
    total, before = sum(unit.duration_s for unit in units), 0.0
    for unit in units:

        def tell(seconds: float, before: float = before, title: str = unit.title) -> None:
            if progress:
                progress(title, before + seconds, total)

        tell(0)
        yield unit, tell
        before += unit.duration_s
        tell(unit.duration_s)


def _result(
    unit: _Unit, settings: Settings, store: ResultStore, tell: Callable[[float], None]
) -> TrackResult:
    """From the store, or computed and stored."""
    files = track_files(unit.track, settings.stems)
    key = store.key(files, unit.parameters)
    kept = store.load(unit.track.name, key)
    if kept is not None:
        return kept
    cut = unit.cut
    result = score_track(
        make_separator(
            unit.model, chunk_s=cut.chunk_s, overlap_s=cut.overlap_s, batch=settings.batch
        ),
        unit.track.name,
        files,
        chunk_s=cut.chunk_s,
        overlap_s=cut.overlap_s,
        progress=tell,
    )
    store.save(key, result)
    return result
