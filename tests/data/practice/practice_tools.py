"""Practice songs for tests, which are skipped visibly where a synthesiser is missing."""

from __future__ import annotations

import ctypes.util
import importlib.util
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

STEMS = ("vocals", "drums", "bass", "other")
SOUNDFONT = Path("/usr/share/sounds/sf2/TimGM6mb.sf2")


def skip_without_synthesisers() -> None:
    """Skips the test if a Debian package or an extra is missing, naming it."""
    missing = [name for name in ("espeak-ng", "flite") if shutil.which(name) is None]
    if ctypes.util.find_library("fluidsynth") is None:
        missing.append("libfluidsynth3")
    if not SOUNDFONT.is_file():
        missing.append("timgm6mb-soundfont")
    if missing:
        pytest.skip(f"needs the Debian packages {' '.join(missing)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("pyworld")
    if importlib.util.find_spec("fluidsynth") is None:
        pytest.skip("needs the practice extra")


def read(song: Path, stem: str) -> np.ndarray:
    """Reads (samples, 2) as int32."""
    samples, rate = soundfile.read(song / f"{stem}.wav", dtype="int16")
    assert rate == 44_100
    return samples.astype(np.int32)


def contents(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
