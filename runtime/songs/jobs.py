"""Determines, before any work, which files a run reads and writes."""

from __future__ import annotations

import shlex
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.errors import OptionError
from bsmamba2.runtime.audio.reader import WHOLE, AudioReader, Section
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
    downmix: bool = False
    """Whether more than two channels are mixed down to stereo; see AudioReader."""

    @property
    def files(self) -> list[Path]:
        """All output files: the stems in order, then the picture."""
        return [*self.outputs.values(), *([self.picture] if self.picture else [])]

    def open(self) -> AudioReader:
        """Opens the song; see AudioReader for what that raises."""
        return AudioReader(self.source, section=self.section, downmix=self.downmix, name=self.name)


def make_jobs(
    sources: Sequence[Source],
    failures: Sequence[Failure],
    template: OutputTemplate,
    stems: Sequence[str],
    ext: str,
    *,
    picture: bool = False,
    section: Section = WHOLE,
    downmix: bool = False,
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
            downmix=downmix,
        )
        for source in sources
    ]
    if template.to_stdout:
        return jobs, list(failures)
    inputs = {_place(job.source): job.name for job in jobs}
    claims: dict[str, dict[str, Source]] = defaultdict(dict)
    for job, source in zip(jobs, sources, strict=True):
        for file in job.files:
            claims[_place(file)][job.name] = source
    advice = {
        place: _advice(template, [*rivals.values()], stems, ext, inputs)
        for place, rivals in claims.items()
        if len(rivals) > 1
    }
    good, bad = [], list(failures)
    for job in jobs:
        if obstacle := _obstacle(job, inputs, claims, advice):
            bad.append(Failure(job.name, obstacle))
        else:
            good.append(job)
    return good, bad


def _advice(
    template: OutputTemplate,
    rivals: Sequence[Source],
    stems: Sequence[str],
    ext: str,
    inputs: Mapping[str, str],
) -> str:
    """Says how songs that would write the same files get files of their own."""
    for fuller in template.with_more_fields():
        files = [fuller.path(source, stem, ext) for source in rivals for stem in stems]
        places = set(map(_place, files))
        if len(places) == len(files) and not places & inputs.keys():
            return f"tell them apart with -o {shlex.quote(fuller.text)}"
    count = "one" if len(rivals) == 2 else "all but one"
    return f"rename {count} of them, or give each a run with its own --out"


def _obstacle(
    job: Job,
    inputs: Mapping[str, str],
    claims: Mapping[str, Collection[str]],
    advice: Mapping[str, str],
) -> str | None:
    """Says in one sentence why a job must not run; None if it may.

    Args:
        job: The job.
        inputs: Place of each input file -> name of its song.
        claims: Place of each output file -> names of the songs that would write it.
        advice: Place of an output file that several songs would write -> how to mend that.
    """
    for file in job.files:
        place = _place(file)
        if place in inputs:
            return f"{file} would overwrite the input {inputs[place]}: choose another --out."
        if place in advice:
            rivals = claims[place]  # includes the job itself
            every = "both" if len(rivals) == 2 else "all"
            return f"{' and '.join(rivals)} would {every} write {file}: {advice[place]}."
    return None


def _place(path: Path) -> str:
    """Returns a string that is equal for two paths if the file system may take them for one.

    That of macOS, by default, heeds neither case nor how accents are composed.
    """
    place = identity(path)
    if sys.platform == "darwin":
        place = unicodedata.normalize("NFC", place).casefold()
    return place
