"""What practice songs need besides this package's own dependencies."""

from __future__ import annotations

import contextlib
import ctypes.util
import io
import shutil
import warnings
from typing import Any

from bsmamba2.errors import DataError, MissingExtraError


def check_installed() -> None:
    """Raises an error that names what to install where something is missing."""
    missing = [name for name in ("espeak-ng", "flite") if shutil.which(name) is None]
    if ctypes.util.find_library("fluidsynth") is None:
        missing.append("libfluidsynth3")
    if missing:
        raise DataError(
            f"Practice songs need programs that are not installed: apt-get install "
            f"{' '.join(missing)} (or the packages of those names on your system)."
        )
    try:
        import_fluidsynth()
        import_world()
    except ModuleNotFoundError as error:
        raise MissingExtraError("'bsm practice'", "practice") from error


def import_fluidsynth() -> Any:
    """pyfluidsynth; raises ImportError.

    Where the environment variable CI is set, it prints what it found, into whatever is printed.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        import fluidsynth

    return fluidsynth


def import_world() -> Any:
    """pyworld, which imports the deprecated pkg_resources; raises ModuleNotFoundError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pyworld

    return pyworld
