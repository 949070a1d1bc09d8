"""Six seconds of real music for benchmarks, from a wheel, because they cannot be shipped here."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def find_excerpt() -> Path:
    """The stem file in the stempeg wheel, whose licence is non-commercial; exits if it is missing.

    Its first audio track is the mixture, its last one the vocals, both in AAC.
    """
    found = importlib.util.find_spec("stempeg")  # importing it would need the program ffmpeg
    if found is None or importlib.util.find_spec("av") is None:
        raise SystemExit(
            "The excerpt of music in stempeg is needed: pip install --no-deps stempeg, and av."
        )
    (folder,) = found.submodule_search_locations or ()
    return next(Path(folder, "data").glob("*.stem.mp4"))
