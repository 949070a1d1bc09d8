"""What a run reads and writes, all of it before any work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.errors import OptionError
from bsmamba2.runtime.audio.reader import WHOLE, Section
from bsmamba2.runtime.songs.output_template import OutputTemplate
from bsmamba2.runtime.songs.sources import Failure, Source, identity


@dataclass(frozen=True, kw_only=True)
class Job:
    """One song to separate."""

    source: Path
    """The file to read."""
    name: str
    """What the song is called in reports."""
    outputs: Mapping[str, Path]
    """Stem -> file, or STDOUT for the only one."""
    picture: Path | None = None
    """A PNG with the spectrograms."""
    section: Section = WHOLE

    @property
    def files(self) -> list[Path]:
        """All that is written: the stems' files in order, then the picture."""
        return [*self.outputs.values(), *([self.picture] if self.picture else [])]


def make_jobs(
    sources: Sequence[Source],
    failures: Sequence[Failure],
    template: OutputTemplate,
    stems: Sequence[str],
    ext: str,
    *,
    picture: bool = False,
    section: Section = WHOLE,
) -> tuple[list[Job], list[Failure]]:
    """Jobs for the songs whose files get in nobody's way, and failures: given ones and others."""
    if template.to_stdout:
        if len(stems) > 1 or len(sources) + len(failures) > 1 or picture:
            raise OptionError(
                "stdout takes one stem of one song and no picture: name one file, choose with "
                "--stems, and leave --picture out."
            )
    else:
        template.check_stems(stems)
    jobs = [
        Job(
            source=source.path,
            name=source.name,
            outputs={stem: template.path(source, stem, ext) for stem in stems},
            picture=template.picture_path(source) if picture else None,
            section=section,
        )
        for source in sources
    ]
    if template.to_stdout:
        return jobs, list(failures)
    inputs = {identity(job.source): job.name for job in jobs}
    claims: dict[str, list[str]] = defaultdict(list)
    for job in jobs:
        for file in job.files:
            claims[identity(file)].append(job.name)
    good, bad = [], list(failures)
    for job in jobs:
        if obstacle := _obstacle(job, inputs, claims):
            bad.append(Failure(job.name, obstacle))
        else:
            good.append(job)
    return good, bad


def _obstacle(
    job: Job, inputs: Mapping[str, str], claims: Mapping[str, Sequence[str]]
) -> str | None:
    """Why a job must not run: one sentence."""
    for file in job.files:
        place = identity(file)
        if place in inputs:
            return f"{file} would overwrite the input {inputs[place]}: choose another --out."
        others = [name for name in claims[place] if name != job.name]
        if others:
            return (
                f"{job.name} and {' and '.join(others)} would both write {file}: put {{folder}} "
                "into --out, or separate them in two runs."
            )
    return None
