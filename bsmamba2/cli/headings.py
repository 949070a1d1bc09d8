"""Headings between the options in the help of a long command."""

from __future__ import annotations

from typing import Any

import click

_WIDEST = 30
"""Columns of an option's name; what is longer gets a line of its own, as in click's help."""


class HeadedOption(click.Option):
    """An option with a heading above it, under which the options after it are listed, too."""

    def __init__(self, *arguments: Any, heading: str, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.heading = heading


class HeadedCommand(click.Command):
    """A command whose help lists its options under the headings of `HeadedOption`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes a section for each heading; options before the first one are "Options"."""
        sections: dict[str, list[tuple[str, str]]] = {}
        heading = "Options"
        for parameter in self.get_params(ctx):
            heading = getattr(parameter, "heading", heading)
            record = parameter.get_help_record(ctx)
            if record and isinstance(parameter, click.Option):
                sections.setdefault(heading, []).append(record)
        names = [name for rows in sections.values() for name, _ in rows]
        width = max(len(name) for name in names if len(name) <= _WIDEST)
        for heading, rows in sections.items():
            with formatter.section(heading):  # one width aligns the columns of all sections
                formatter.write_dl([(f"{name:{width}}", text) for name, text in rows], width)
