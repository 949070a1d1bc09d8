"""Scores of an engine on six seconds of real music, which no model here was trained on.

    python bench/embedded/excerpt.py [ENGINE]

The music is in the stempeg wheel (pip install --no-deps stempeg), which
`bsmamba2.evaluation.reference_excerpt` reads. Its licence is non-commercial.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout

from bsmamba2.evaluation.metrics import csdr_frames, usdr
from bsmamba2.evaluation.reference_excerpt import load_excerpt
from bsmamba2.runtime import Separator, load_engine
from bsmamba2.runtime.separation.separator import DEFAULT_OVERLAP_S


def main() -> None:
    """Prints SDRs of the mixture and of the separated voice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", nargs="?", default="default", help="an engine file")
    arguments = parser.parse_args()
    excerpt = load_excerpt()
    if excerpt is None:
        raise SystemExit("pip install --no-deps stempeg, and av: its excerpt is what is measured.")
    mixture, vocals, rate = excerpt.mixture, excerpt.vocals, excerpt.sample_rate
    print(f"{'vocals, dB':24}  {'uSDR':>6}  {'cSDR':>6}")
    _print_row("the mixture itself", vocals, mixture, rate)
    for overlap_s in (0.0, DEFAULT_OVERLAP_S):
        separator = Separator(load_engine(arguments.engine), overlap_s=overlap_s)
        estimate = separator.separate(mixture, rate)["vocals"]
        _print_row(
            f"{Path(arguments.engine).name}, overlap {overlap_s:g} s", vocals, estimate, rate
        )


def _print_row(
    name: str, reference: NDArray[np.float32], estimate: NDArray[np.float32], rate: int
) -> None:
    csdr = np.nanmedian(csdr_frames(reference, estimate, rate))
    print(f"{name:24}  {usdr(reference, estimate):6.2f}  {csdr:6.2f}")


if __name__ == "__main__":
    main()
