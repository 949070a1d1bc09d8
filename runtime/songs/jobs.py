"""Determines, before any work, which files a run reads and writes."""

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
    """Name of the song in reports."""
    outputs: Mapping[str, Path]
    """Stem -> file; or STDOUT if there is only one stem."""
    picture: Path | None = None
    """PNG file for the spectrograms."""
    section: Section = WHOLE

    @property
    def files(self) -> list[Path]:
        """All output files: the stems in order, then the picture."""
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
    """Makes a job for each song; songs whose output files collide are appended to the failures.

    Raises:
        OptionError: The template does not suit the stems, or stdout cannot take all output.
    """
    if template.to_stdout:
        if len(stems) > 1 or len(sources) + len(failures) > 1 or picture:
            raise OptionError(
                "stdout takes one stem of one song and no picture: name one file, choose a stem "
                "with --stems, and leave --picture out."
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
    claims: dict[str, dict[str, Path]] = defaultdict(dict)
    for job, source in zip(jobs, sources, strict=True):
        for file in job.files:
            claims[identity(file)][job.name] = source.folder
    good, bad = [], list(failures)
    for job in jobs:
        if obstacle := _obstacle(job, inputs, claims):
            bad.append(Failure(job.name, obstacle))
        else:
            good.append(job)
    return good, bad


def _obstacle(
    job: Job, inputs: Mapping[str, str], claims: Mapping[str, Mapping[str, Path]]
) -> str | None:
    """Says in one sentence why a job must not run; None if it may.

    Args:
        job: The job.
        inputs: Identity of each input file -> name of its song.
        claims: Identity of each output file -> names of its songs -> their `Source.folder`.
    """
    for file in job.files:
        place = identity(file)
        if place in inputs:
            return f"{file} would overwrite the input {inputs[place]}: choose another --out."
        rivals = claims[place]  # includes the job itself
        if len(rivals) > 1:
            mend = "rename one of them, or give each a run with its own --out"
            if len(set(rivals.values())) == len(rivals):
                mend = "put {folder} into --out"
            every = "both" if len(rivals) == 2 else "all"
            return f"{' and '.join(rivals)} would {every} write {file}: {mend}."
    return None
