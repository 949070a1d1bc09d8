"""The errors a user can cause; each message is one sentence that says how to mend it.

A class says in its docstring what it means and, after "Mend:", what helps in general; what helps
in particular is in the sentence. ERRORS.md is made from both by `python tests/error_page.py`.
"""

import functools
import logging
import re


class BsmError(Exception):
    """Base of all errors that the command line prints as one sentence; raised as a subclass."""


def failure_sentence(error: Exception, command: str) -> str:
    """One sentence for what failed among other things; `command` is to be run to see more."""
    if isinstance(error, BsmError):
        return str(error)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"unexpected {text}; run 'bsm --debug {command} ...' and report it."


def one_line(text: str) -> str:
    """A text for people: a name in it may hold line ends and what steers a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def short_reason(error: object) -> str:
    """What another program says, to put into a sentence: CUDA's own words, or the first line."""
    text = str(error).strip()
    cuda = re.search(r"cudaError \d+: [^()]*", text)
    line = cuda[0] if cuda else (text.splitlines() or [type(error).__name__])[0]
    return line[:200].rstrip(" .")


@functools.cache
def warn_once(logger: logging.Logger, sentence: str) -> None:
    """Logs a warning the first time that this process has a reason for it."""
    logger.warning("%s", sentence)


class OptionError(BsmError):
    """An option, argument or name that cannot be, or that does not go with another.

    Mend: `bsm COMMAND --help` says what goes.
    """


class FileError(BsmError):
    """A file or folder that is missing, or that cannot be read or written.

    Mend: correct the name, the permissions, or make room on the disk.
    """


class ConfigError(BsmError):
    """A configuration or model card that is no YAML, or a value in it that cannot be.

    Mend: correct the key that the sentence names; `bsm info bsmamba2` shows a right one.
    """


class CheckpointError(BsmError):
    """Weights or an engine's file that are damaged, unsafe or of another network.

    Mend: copy or download the file again, or make it again with `bsm import` or `bsm export`.
    """


class AudioError(BsmError):
    """A sound file or array that cannot be decoded, separated or written.

    Mend: play the file to hear whether it is whole; copy it again, or convert it to WAV.
    """


class DataError(BsmError):
    """Songs for training or evaluation that are missing, damaged or of another layout.

    Mend: correct the files that are listed; the layout is that of MUSDB18-HQ.
    """


class EngineError(BsmError):
    """An engine that cannot run here, or that returned no usable mask.

    Mend: `bsm doctor` says what this machine can run; an engine of another backend may do.
    """


class ExportError(BsmError):
    """An export that is impossible, or that failed its own check.

    Mend: start from the `.safetensors` checkpoint; in float32 if a lower precision failed.
    """


class TrainingError(BsmError):
    """A training run that cannot start, go on or be resumed.

    Mend: undo the change that the sentence names, or choose another `--out`.
    """


class PluginError(BsmError):
    """A native library that cannot be built, found or loaded.

    Mend: `bsm plugin build` builds it; `bsm doctor` says what is missing for that.
    """


class MissingExtraError(BsmError):
    """An optional dependency that is not installed.

    Mend: the `pip install` in the sentence.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the '{extra}' extra: pip install 'bsmamba2[{extra}]'")
