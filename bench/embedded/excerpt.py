"""Scores of an engine on six seconds of real music, which no model here was trained on.

    python bench/embedded/excerpt.py [ENGINE]

The music is in the stempeg wheel (pip install --no-deps stempeg).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout

from bench.common.excerpt import find_excerpt
from bsmamba2.evaluation.metrics import csdr_frames, usdr
from bsmamba2.evaluation.reference_excerpt import load_reference_excerpt
from bsmamba2.runtime import Separator, load_engine
from bsmamba2.runtime.separation.separator import DEFAULT_OVERLAP_S


def main() -> None:
    """Prints the SDRs of the mixture and of the separated vocals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "engine", nargs="?", default="default", help="an engine file (default: the embedded engine)"
    )
    arguments = parser.parse_args()
    engine = load_engine(arguments.engine)
    audio = replace(engine.metadata.model.audio, chunk_s=8)  # one chunk holds all of it
    excerpt = load_reference_excerpt(find_excerpt(), audio)
    assert excerpt.voice is not None
    estimates = {"the mixture itself": excerpt.mixture}
    for overlap_s in (0.0, DEFAULT_OVERLAP_S):
        stems = Separator(engine, overlap_s=overlap_s).separate(excerpt.mixture, audio.sample_rate)
        estimates[f"{Path(arguments.engine).name}, overlap {overlap_s:g} s"] = stems["vocals"]
    print(f"{'vocals, dB':24}  {'uSDR':>6}  {'cSDR':>6}")
    for name, estimate in estimates.items():
        csdr = np.nanmedian(csdr_frames(excerpt.voice, estimate, audio.sample_rate))
        print(f"{name:24}  {usdr(excerpt.voice, estimate):6.2f}  {csdr:6.2f}")


if __name__ == "__main__":
    main()
