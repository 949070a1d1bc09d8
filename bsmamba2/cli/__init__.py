"""The command line: one file for each command, imported when it is called.

Command modules import only click at their top, so that `bsm --help` is quick and needs no
backend. Their help is an argument, as `python -OO` drops docstrings. Errors become one sentence on
stderr; `--debug` shows the traceback.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import sys
import warnings

import click

from bsmamba2 import __version__
from bsmamba2.errors import BsmError, one_line, quoted, resource_error
from bsmamba2.system.lanes import at_work
from bsmamba2.system.signals import Terminated, terminated_by_signals
from bsmamba2.system.streams import secure_standard_streams

GROUPS = {  # heading in the help -> names of commands, in the order of a first use
    "Separation": ("infer",),
    "Models": ("info", "import", "export", "parity"),
    "Training and evaluation": ("train", "eval", "practice"),
    "This machine": ("doctor", "plugin", "completion"),
}
COMMANDS = tuple(name for names in GROUPS.values() for name in names)
_SHORT_HELP = 64
"""Characters of a command's first sentence that `bsm --help` shows."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LazyGroup(click.Group):
    """A group whose commands are modules of this package, each with a function `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command's function, or None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module = "import_" if cmd_name == "import" else cmd_name
        command: click.Command = importlib.import_module(f"bsmamba2.cli.{module}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command; if a file is named instead, the error suggests `bsm infer`."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if os.path.exists(args[0]):
                infer = f"did you mean 'bsm infer {one_line(quoted(args[0]))}'?"
                raise click.UsageError(f"{error.message.rstrip('.')}; {infer}", ctx) from error
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands in their groups, then the options."""
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes a section for each group of commands."""
        width = max(map(len, COMMANDS))
        for heading, names in GROUPS.items():
            commands = {name: self.get_command(ctx, name) for name in names}
            with formatter.section(heading):
                formatter.write_dl(
                    [
                        (f"{name:{width}}", command.get_short_help_str(_SHORT_HELP))
                        for name, command in commands.items()
                        if command
                    ]
                )


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="""Separate vocals from music with BSMamba2.

    \b
    First steps:
      bsm infer song.wav    # out/song/vocals.wav and out/song/instrumental.wav
      bsm infer --help      # engines, names and formats of files, speed
      bsm doctor            # what this machine can run, and what is missing

    Exit codes: 0 success, 1 something failed, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP.
    """,
)
@click.version_option(__version__, prog_name="bsm")
@click.option("--debug", is_flag=True, help="Show log messages, and tracebacks of errors.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Sets what holds for all commands."""
    ctx.obj = debug
    level = logging.DEBUG if debug else logging.WARNING
    # If tqdm gets no monitor thread, bars are refreshed less often, which needs no warning.
    warnings.filterwarnings("ignore", "tqdm:disabling monitor")
    logging.basicConfig(level=level, format="%(levelname)s: %(message)s", stream=sys.stderr)


def main(arguments: list[str] | None = None) -> None:
    """The entry point of `bsm`; exits with the codes that its help lists."""
    arguments = sys.argv[1:] if arguments is None else arguments
    secure_standard_streams()
    # With more, OpenBLAS asks again and again for refused memory while NumPy and SciPy load, and
    # signals are not heard meanwhile.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    code = _run(arguments)
    if at_work():
        with contextlib.suppress(OSError, AttributeError):  # AttributeError: stdout is closed
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    """Runs a command; returns the exit code, once the sentence of an error is printed."""
    try:
        with terminated_by_signals():
            return cli.main(arguments, prog_name="bsm", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return 130
    except Terminated as end:
        click.echo("Terminated.", err=True)
        return 128 + end.number
    except Exception as error:
        if "--debug" in arguments:
            raise
        lines = map(one_line, _sentence(error).splitlines())  # file names may hold anything
        click.echo("Error: " + "\n".join(lines), err=True)
        return error.exit_code if isinstance(error, BsmError) else 1


def _sentence(error: Exception) -> str:
    if isinstance(known := resource_error(error) or error, BsmError):
        return str(known)
    if isinstance(error, OSError) and error.errno in _NO_ROOM:  # such as an error of stdout
        return f"Cannot write: {error.strerror}; make room, or write elsewhere."
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"The name {error.filename} is too long: choose a shorter one."
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"Unexpected {text}. Run 'bsm --debug ...' and report what it prints."
