"""Scores of an engine on six seconds of real music, which no model here was trained on.

    python bench/embedded/excerpt.py [ENGINE]

The music is in the stempeg wheel (pip install --no-deps stempeg): five streams of AAC, of which the
first is the mixture and the last the voice. Its licence is non-commercial.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bsmamba2.evaluation.metrics import csdr_frames, usdr
from bsmamba2.runtime import Separator, load_engine

SAMPLE_RATE = 44_100
_MIXTURE, _VOCALS = 0, 4  # streams


def main() -> None:
    """Prints SDRs of the mixture and of the separated voice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", nargs="?", default="default", help="an engine file")
    arguments = parser.parse_args()
    mixture, vocals = (_decode(_find_excerpt(), stream) for stream in (_MIXTURE, _VOCALS))
    print(f"{'vocals, dB':24}  {'uSDR':>6}  {'cSDR':>6}")
    _print_row("the mixture itself", vocals, mixture)
    for overlap_s in (0.0, 1.0):
        separator = Separator(load_engine(arguments.engine), overlap_s=overlap_s)
        estimate = separator.separate(mixture, SAMPLE_RATE)["vocals"]
        _print_row(f"{Path(arguments.engine).name}, overlap {overlap_s:g} s", vocals, estimate)


def _print_row(name: str, reference: NDArray[np.float32], estimate: NDArray[np.float32]) -> None:
    csdr = np.nanmedian(csdr_frames(reference, estimate, SAMPLE_RATE))
    print(f"{name:24}  {usdr(reference, estimate):6.2f}  {csdr:6.2f}")


def _find_excerpt() -> Path:
    found = importlib.util.find_spec("stempeg")  # importing it would need ffmpeg
    if found is None or not found.submodule_search_locations:
        raise SystemExit("pip install --no-deps stempeg: its excerpt is what is measured.")
    return next((Path(found.submodule_search_locations[0]) / "data").glob("*.stem.mp4"))


def _decode(path: Path, stream: int) -> NDArray[np.float32]:
    """One audio stream, (channels, samples)."""
    import av

    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=stream)]
    return np.concatenate(frames, axis=1)


if __name__ == "__main__":
    main()
