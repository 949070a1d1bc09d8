"""Names the output files of a song."""

from __future__ import annotations

import os
import string
from collections.abc import Iterator, Sequence
from pathlib import Path

from bsmamba2.errors import OptionError
from bsmamba2.runtime.audio.writing import FORMATS
from bsmamba2.runtime.songs.pipes import PIPE, STDOUT, check_stdout
from bsmamba2.runtime.songs.sources import Source

NAMES_IN_FOLDER = "{folder}/{track}/{stem}.{ext}"
DEFAULT_TEMPLATE = f"out/{NAMES_IN_FOLDER}"
FIELDS = ("folder", "track", "trackext", "stem", "ext")
PICTURE = "spectrograms"
"""The name that a picture has in place of a stem's."""


class OutputTemplate:
    """A template for output names, such as 'out/{track}/{stem}.{ext}', or '-' for stdout.

    A name without fields is a folder, which gets the default names, if it has no suffix, ends in a
    slash or is that of a folder.
    """

    def __init__(self, text: str) -> None:
        """Checks the text; raises OptionError for unknown fields, or if stdout is a terminal."""
        self.to_stdout = text == PIPE
        self.text = text = str(STDOUT) if self.to_stdout else text
        if self.to_stdout:
            check_stdout()
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise OptionError(
                f"The output name '{text}' cannot be read ({error}): write it as in "
                f"'{DEFAULT_TEMPLATE}'."
            ) from error
        self._fields = {name for _, name, _, _ in parts if name is not None}
        for _, name, spec, conversion in parts:
            if name is not None and (name not in FIELDS or spec or conversion):
                known = ", ".join(f"{{{field}}}" for field in FIELDS)
                raise OptionError(f"The output name '{text}' has an unknown field: use {known}.")
        is_folder = text.endswith("/") or not Path(text).suffix or os.path.isdir(text)
        if text and is_folder and not (self._fields or self.to_stdout):
            self.text = f"{text.rstrip('/')}/{NAMES_IN_FOLDER}"
            self._fields = set(FIELDS) - {"trackext"}

    def format_name(self, wanted: str | None) -> str:
        """Returns the name of the format: the wanted one, the template's suffix, or wav.

        Raises:
            BsmError: The two differ, or the suffix is not a format that can be written.
        """
        if self.to_stdout or self.text.endswith(".{ext}"):
            return wanted or FORMATS[0]
        suffix = Path(self.text).suffix.lower().removeprefix(".")
        if suffix not in FORMATS:
            better = f"{self.text}/" if self.text else DEFAULT_TEMPLATE
            if self._fields:
                unknown = Path(self.text).suffix
                better = self.text.removesuffix("" if "{" in unknown else unknown) + ".{ext}"
            raise OptionError(
                f"The output name '{self.text}' must end in .{{ext}} or one of "
                f".{', .'.join(FORMATS)}: write -o '{better}'."
            )
        if wanted not in (None, suffix):
            raise OptionError(
                f"The output name '{self.text}' does not fit --format {wanted}: leave one out."
            )
        return suffix

    def check_stems(self, stems: Sequence[str]) -> None:
        """Raises OptionError if several stems would get the same name."""
        if len(stems) > 1 and "stem" not in self._fields:
            raise OptionError(
                f"The output name '{self.text}' needs {{stem}} to tell {' and '.join(stems)} "
                f"apart: write it as in '{DEFAULT_TEMPLATE}'."
            )

    def path(self, source: Source, stem: str, ext: str) -> Path:
        """Returns the output file of a stem."""
        names = {"track": source.path.stem, "stem": stem, "ext": ext}
        names["trackext"] = source.path.suffix.removeprefix(".") or "_"
        safe = {field: _safe_name(name) for field, name in names.items()}
        folder = "/".join(map(_safe_name, source.folder.parts)) or "."
        return Path(self.text.format(folder=folder, **safe))

    def picture_path(self, source: Source) -> Path:
        """Returns the PNG file of a song, named like its stems, or like the song without {stem}."""
        stem = PICTURE if "stem" in self._fields else ""
        path = self.path(source, stem, "png").with_suffix(".png")
        return path if stem else path.with_stem(f"{path.stem}.{PICTURE}")

    @property
    def top(self) -> Path | None:
        """The folder that will hold all output, if the template names one."""
        folder, found, _ = self.text.partition("{")[0].rpartition("/")
        return Path(folder or "/") if found else None

    def with_more_fields(self) -> Iterator[OutputTemplate]:
        """Yields templates that tell more songs apart: this one with more fields, fewest first."""
        text = self.text
        if "track" not in self._fields:
            above, slash, name = text.rpartition("/")
            text = f"{above}{slash}{{track}}/{name}"
        top, slash, _ = text.partition("{")[0].rpartition("/")
        below = text.removeprefix(top + slash)
        by_folder = text if "folder" in self._fields else f"{top}{slash}{{folder}}/{below}"
        for fuller in (text, by_folder):
            yield OutputTemplate(fuller)
        if "trackext" not in self._fields:
            for fuller in (text, by_folder):
                yield OutputTemplate(fuller.replace("{track}", "{track}.{trackext}"))


def _safe_name(name: str) -> str:
    """Replaces path separators and unprintable characters by underscores."""
    name = "".join("_" if char in "/\\" or not char.isprintable() else char for char in name)
    return name if name.strip(". ") else "_" * len(name)
