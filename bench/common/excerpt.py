"""Six seconds of real music for benchmarks, which cannot be shipped: they are in a wheel."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def find_excerpt() -> Path:
    """The stem file in the stempeg wheel, whose licence is non-commercial; exits without it.

    Its first audio track is the mixture, its last one the voice, in AAC.
    """
    found = importlib.util.find_spec("stempeg")  # importing it would need the program ffmpeg
    if found is None or importlib.util.find_spec("av") is None:
        raise SystemExit("pip install --no-deps stempeg, and av: its excerpt of music is needed.")
    (folder,) = found.submodule_search_locations or ()
    return next(Path(folder, "data").glob("*.stem.mp4"))
