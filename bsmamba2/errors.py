"""The errors a user can cause; each message is one sentence that also says how to fix the problem.

The docstring of a class says what went wrong and, after "Fix:", what helps in general; the message
says what helps in the case at hand. `python tests/error_page.py` makes ERRORS.md from both.
"""

import functools
import logging
import re
import shlex


class BsmError(Exception):
    """Base class of the errors that the command line prints as one sentence; raise a subclass."""

    exit_code = 1


_NO_THREAD = ("can't start new thread", "Resource temporarily unavailable")
_NO_MEMORY = (
    *("Cannot allocate memory", "cannot allocate memory", "can't allocate memory"),
    *("Failed to allocate memory", "failed to map segment", "bad_alloc", "not enough memory"),
)
"""What the libraries that we call say; their classes of errors tell nothing."""


def resource_error(error: BaseException) -> BsmError | None:
    """Explains an error if the system refused memory or a thread; returns None for other errors."""
    if isinstance(error, BsmError):
        return error if isinstance(error, ResourceError) else None
    text = str(error)
    if any(words in text for words in _NO_THREAD):
        return ResourceError(
            "The system refused another thread: close other programs, or use fewer --threads or "
            "--jobs."
        )
    if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
        return ResourceError(
            "The system refused more memory: close other programs, or use fewer --jobs or a "
            "smaller --batch."
        )
    return None


def failure_sentence(error: Exception, command: str) -> str:
    """Describes in one sentence why one of several files failed while `command` ran."""
    if isinstance(known := resource_error(error) or error, BsmError):
        return str(known)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"unexpected {text}; run 'bsm --debug {command} ...' and report it."


def one_line(text: str) -> str:
    """Makes a text safe to print: line ends and control characters in names become "?"."""
    return "".join(char if char.isprintable() else "?" for char in text)


def quoted(word: object) -> str:
    """Quotes a word for a shell if needed; with "" if possible, as sentences put commands in ''."""
    text = f"./{word}" if str(word).startswith("-") else str(word)
    plain = not set(text) & set('"$`\\!')
    return f'"{text}"' if plain and shlex.quote(text) != text else shlex.quote(text)


def short_reason(error: object) -> str:
    """Shortens another library's error to fit a sentence: its CUDA error, or its first line."""
    text = str(error).strip()
    cuda = re.search(r"cudaError \d+: [^()]*", text)
    line = cuda[0] if cuda else (text.splitlines() or [type(error).__name__])[0]
    return line[:200].rstrip(" .")


@functools.cache
def warn_once(logger: logging.Logger, sentence: str) -> None:
    """Logs a warning, once per process for each sentence."""
    logger.warning("%s", sentence)


class OptionError(BsmError):
    """An option, argument or name is invalid, or conflicts with another one.

    Fix: see `bsm COMMAND --help` for what is allowed.
    """

    exit_code = 2


class FileError(BsmError):
    """A file or folder is missing, or cannot be read or written.

    Fix: correct the name or the permissions, or make room on the disk.
    """


class ConfigError(BsmError):
    """A configuration or model card is not valid YAML, or has an unknown key or a wrong value.

    Fix: correct the key that the message names; `bsmamba2/config/bsmamba2.yaml` explains them all.
    """


class CheckpointError(BsmError):
    """A checkpoint or engine file is damaged, unsafe, or made for another network.

    Fix: copy or download the file again, or make it again with `bsm import` or `bsm export`.
    """


class AudioError(BsmError):
    """An audio file or array cannot be decoded, separated or written.

    Fix: play the file to check that it is intact; copy it again, or convert it to WAV.
    """


class DataError(BsmError):
    """Songs for training or evaluation are missing, damaged or not laid out like MUSDB18-HQ.

    Fix: correct the files or folders that the message lists.
    """


class EngineError(BsmError):
    """An engine cannot run here, or returned an unusable mask.

    Fix: see `bsm doctor` for what this machine can run; try an engine of another backend.
    """


class ExportError(BsmError):
    """An export is impossible, or failed its own checks.

    Fix: export the `.safetensors` checkpoint; use float32 if a lower precision failed.
    """


class ResourceError(BsmError):
    """The system refused memory, or another thread or process.

    Fix: close other programs, or raise the limits (`ulimit`, a container's) under which they run.
    """


class TrainingError(BsmError):
    """A training run cannot start, continue or be resumed.

    Fix: undo the change that the message names, or choose another `--out`.
    """


class PluginError(BsmError):
    """A native library cannot be built, found or loaded.

    Fix: run `bsm plugin build`; `bsm doctor` shows what is missing for it.
    """


class MissingExtraError(BsmError):
    """An optional dependency is not installed, or is too old.

    Fix: run the `pip install` command in the message.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the '{extra}' extra: pip install 'bsmamba2[{extra}]'")
