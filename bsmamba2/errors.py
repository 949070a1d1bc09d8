"""The errors a user can cause; each message is one sentence that says how to mend it."""


class BsmError(Exception):
    """Base of all errors that the command line prints as one sentence."""


def failure_sentence(error: Exception, command: str) -> str:
    """One sentence for what failed among other things; `command` is to be run to see more."""
    if isinstance(error, BsmError):
        return str(error)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"unexpected {text}; run 'bsm --debug {command} ...' and report it."


def short_reason(error: object) -> str:
    """The first line of what another program says, cut where it is long, to put into a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(" .")


class ConfigError(BsmError):
    """A configuration file or value that describes no network."""


class CheckpointError(BsmError):
    """A weight file that is damaged, unsafe or of another network."""


class AudioError(BsmError):
    """An audio file or array that cannot be read, separated or written."""


class DataError(BsmError):
    """Training or test songs that are missing, damaged or of another layout."""


class EngineError(BsmError):
    """An engine that cannot be loaded or that returned no usable mask."""


class ExportError(BsmError):
    """An export that failed its own check."""


class TrainingError(BsmError):
    """A training run that cannot start, go on or be resumed."""


class PluginError(BsmError):
    """A native library that cannot be built, found or loaded."""


class MissingExtraError(BsmError):
    """An optional dependency that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the '{extra}' extra: pip install 'bsmamba2[{extra}]'")
