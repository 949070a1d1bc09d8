"""Real music for the tests, and the law that its stems obey."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest


def excerpt() -> Path:
    """Six seconds of a song from the stempeg wheel, stereo, AAC in MP4; skips without the wheel."""
    pytest.importorskip("av")
    found = importlib.util.find_spec("stempeg")  # its import would need ffmpeg
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs the stempeg wheel, for its excerpt of music")
    return next((Path(found.submodule_search_locations[0]) / "data").glob("*.stem.mp4"))


def decoded(song: Path, stream: int = 0) -> np.ndarray:
    """Decodes a stream, (samples, channels); in the excerpt, 0 is the mixture and 4 the vocals."""
    import av

    with av.open(str(song)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=stream)]
    return np.concatenate(frames, axis=1).T


def assert_null(mixture: np.ndarray, vocals: np.ndarray, instrumental: np.ndarray) -> None:
    """The stems add up to the mixture, within one ulp of the largest of the three numbers."""
    largest = np.maximum(np.maximum(np.abs(vocals), np.abs(instrumental)), np.abs(mixture))
    error = np.abs(vocals.astype(np.float64) + instrumental - mixture)
    assert (error <= np.spacing(largest)).all()
