"""Which files are separated, and what their stems are called; all of it before any work."""

from __future__ import annotations

import os
import string
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.errors import BsmError
from bsmamba2.files import existing_file
from bsmamba2.runtime.audio import OTHER_SUFFIXES, SOUNDFILE_SUFFIXES
from bsmamba2.runtime.writing import FORMATS

DEFAULT_TEMPLATE = "out/{track}/{stem}.{ext}"
FIELDS = ("track", "stem", "ext")


@dataclass(frozen=True)
class Job:
    """One file to separate."""

    source: Path
    outputs: Mapping[str, Path]
    """Stem -> file."""


@dataclass(frozen=True)
class Failure:
    """An input that gave nothing."""

    source: str
    """As it was named."""
    error: str
    """One sentence."""


class OutputTemplate:
    """Names of output files, such as 'out/{track}/{stem}.{ext}'."""

    def __init__(self, text: str) -> None:
        """Checks the text; raises BsmError for fields that do not exist."""
        self.text = text
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise BsmError(f"The output name '{text}' cannot be read: {error}.") from error
        self._fields = {name for _, name, _, _ in parts if name is not None}
        for _, name, spec, conversion in parts:
            if name is not None and (name not in FIELDS or spec or conversion):
                known = ", ".join(f"{{{field}}}" for field in FIELDS)
                raise BsmError(f"The output name '{text}' has an unknown field: use {known}.")

    def format_name(self, wanted: str | None) -> str:
        """The format's name: as wanted, or by the template's own suffix, or wav.

        Raises:
            BsmError: The two differ, or the suffix is none that can be written.
        """
        if self.text.endswith(".{ext}"):
            return wanted or FORMATS[0]
        suffix = Path(self.text).suffix.lower().removeprefix(".")
        if suffix not in FORMATS:
            raise BsmError(
                f"The output name '{self.text}' must end in .{{ext}} or one of "
                f".{', .'.join(FORMATS)}, as in '{DEFAULT_TEMPLATE}'."
            )
        if wanted not in (None, suffix):
            raise BsmError(f"The output name '{self.text}' does not fit --format {wanted}.")
        return suffix

    def check_stems(self, stems: Sequence[str]) -> None:
        """Raises BsmError if several stems would get one name."""
        if len(stems) > 1 and "stem" not in self._fields:
            raise BsmError(
                f"The output name '{self.text}' needs {{stem}} to tell {' and '.join(stems)} "
                f"apart, as in '{DEFAULT_TEMPLATE}'."
            )

    def path(self, source: Path, stem: str, ext: str) -> Path:
        """The file of one stem."""
        return Path(self.text.format(track=_safe_name(source.stem), stem=_safe_name(stem), ext=ext))


def find_inputs(names: Iterable[str | Path]) -> tuple[list[Path], list[Failure]]:
    """Files by name, and the audio files that lie directly in folders, sorted; each once.

    Returns:
        The files, and the names that gave none.
    """
    found: dict[str, Path] = {}
    failures: list[Failure] = []
    for path in map(Path, names):
        try:
            files = sorted(_audio_files(path)) if path.is_dir() else [existing_file(path)]
        except OSError as error:
            failures.append(Failure(str(path), f"{path} cannot be listed: {error.strerror}."))
            continue
        except BsmError as error:
            failures.append(Failure(str(path), str(error)))
            continue
        if not files:
            mend = "name a folder with audio files, or the files themselves"
            failures.append(Failure(str(path), f"{path} is a folder without audio: {mend}."))
        for file in files:
            found.setdefault(_identity(file), file)
    return list(found.values()), failures


def plan_outputs(
    sources: Sequence[Path], template: OutputTemplate, stems: Sequence[str], ext: str
) -> tuple[list[Job], list[Failure]]:
    """Jobs for the inputs whose outputs get in nobody's way, failures for the others."""
    template.check_stems(stems)
    jobs = [
        Job(source, {stem: template.path(source, stem, ext) for stem in stems})
        for source in sources
    ]
    inputs = {_identity(source): source for source in sources}
    claims: dict[str, list[Path]] = defaultdict(list)
    for job in jobs:
        for output in job.outputs.values():
            claims[_identity(output)].append(job.source)
    good, failures = [], []
    for job in jobs:
        obstacle = _obstacle(job, inputs, claims)
        if obstacle:
            failures.append(Failure(str(job.source), obstacle))
        else:
            good.append(job)
    return good, failures


def _obstacle(
    job: Job, inputs: Mapping[str, Path], claims: Mapping[str, Sequence[Path]]
) -> str | None:
    """Why a job must not run: one sentence."""
    for output in job.outputs.values():
        identity = _identity(output)
        if identity in inputs:
            return f"{output} would overwrite the input {inputs[identity]}: choose another --out."
        others = [str(source) for source in claims[identity] if source != job.source]
        if others:
            return (
                f"{job.source} and {' and '.join(others)} would both write {output}: separate "
                "them in two runs with different --out."
            )
    return None


def _audio_files(folder: Path) -> list[Path]:
    """Audio files directly in a folder, but no hidden ones (.partial-..., ._song.wav)."""
    suffixes = SOUNDFILE_SUFFIXES | OTHER_SUFFIXES
    return [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and path.is_file() and not path.name.startswith(".")
    ]


def _identity(path: Path) -> str:
    """Equal for two names of one place."""
    return os.path.normcase(os.path.realpath(path))


def _safe_name(name: str) -> str:
    """A name that stays in its folder and on one line."""
    name = "".join("_" if char in "/\\" or not char.isprintable() else char for char in name)
    return name if name.strip(". ") else "_" * len(name)
