"""Checks for the programs and packages that practice songs need beyond the usual dependencies."""

from __future__ import annotations

import contextlib
import ctypes.util
import importlib
import io
import shutil
import warnings
from typing import Any

from bsmamba2.errors import DataError, MissingExtraError


def check_installed() -> None:
    """Raises BsmError naming the packages to install if any are missing."""
    missing = [name for name in ("espeak-ng", "flite") if shutil.which(name) is None]
    if ctypes.util.find_library("fluidsynth") is None:
        missing.append("libfluidsynth3")
    if missing:
        raise DataError(
            f"Practice songs need programs that are not installed: apt-get install "
            f"{' '.join(missing)} (or the packages of those names on your system)."
        )
    try:
        for name in ("fluidsynth", "pyworld"):
            import_quietly(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError("'bsm practice'", "practice") from error


def import_quietly(name: str) -> Any:
    """Imports a module without its prints and warnings; raises ImportError.

    pyfluidsynth prints its library's path if the environment variable CI is set; pyworld imports
    the deprecated pkg_resources.
    """
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return importlib.import_module(name)
