"""Levels of practice songs beside those of real music.

    python bench/embedded/practice_levels.py SONGS [--split train] [--songs 40]

SONGS is a folder that `bsm practice` made; real music is the excerpt of six seconds in the
stempeg wheel (five streams: mixture, drums, bass, other, vocals). For the mixture and each stem
the table gives the median over songs and, in brackets, the quartiles, and the excerpt's value:

    rms           dB of full scale, over the whole song
    crest         dB of the peak over the RMS
    side/mid      dB of the channels' difference over their sum
    active        per cent of pieces of 0.1 s above -50 dBFS
    31 ... 16k    dB of an octave's power over the whole power
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout

from bsmamba2.evaluation.reference_excerpt import decode_stream, find_excerpt

STREAMS = ("mixture", "drums", "bass", "other", "vocals")
OCTAVES_HZ = (31, 62, 125, 250, 500, 1000, 2000, 4000, 8000, 16_000)
ROWS = ("rms", "crest", "side/mid", "active", *(str(hz) for hz in OCTAVES_HZ))
_BLOCK = 4096
Samples = NDArray[np.float32]


def measure(samples: Samples, rate: int) -> NDArray[np.float64]:
    """(rows,) of ROWS for (samples, 2) of full scale 1."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) + 1e-12
    mid, side = samples.mean(axis=1), samples[:, 0] - samples[:, 1]
    piece = rate // 10
    pieces = samples[: len(samples) // piece * piece].reshape(-1, piece, 2)
    active = 100 * np.mean(np.mean(pieces**2, axis=(1, 2)) > 10 ** (-50 / 10))
    levels = [
        _db(power),
        _db(np.abs(samples).max() ** 2 / power),
        _db((np.mean(side**2) / 4) / (np.mean(mid**2) + 1e-12)),
        float(active),
    ]
    return np.array(levels + _octaves(samples, rate))


def _octaves(samples: Samples, rate: int) -> list[float]:
    blocks = samples[: len(samples) // _BLOCK * _BLOCK].reshape(-1, _BLOCK, 2)
    window = np.hanning(_BLOCK).astype(np.float32)[:, None]
    power = (np.abs(np.fft.rfft(blocks * window, axis=1)) ** 2).mean(axis=(0, 2))
    hz = np.fft.rfftfreq(_BLOCK, 1 / rate)
    return [
        _db(power[(hz >= centre / 2**0.5) & (hz < centre * 2**0.5)].sum() / (power.sum() + 1e-12))
        for centre in OCTAVES_HZ
    ]


def _db(power: float) -> float:
    return float(10 * np.log10(max(power, 1e-9)))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Levels of practice songs beside real music.")
    parser.add_argument("songs", type=Path, metavar="SONGS")
    parser.add_argument("--split", default="train", help="default: train")
    parser.add_argument("--songs", dest="count", type=int, default=40, help="default: 40")
    arguments = parser.parse_args()
    folders = sorted((arguments.songs / arguments.split).glob("song-*"))[: arguments.count]
    if not folders:
        sys.exit(f"No songs in {arguments.songs / arguments.split}.")
    excerpt = find_excerpt()
    if excerpt is None:
        sys.exit("pip install --no-deps stempeg, and av: its excerpt is what songs are beside.")
    real = {}
    for stream, stem in enumerate(STREAMS):
        samples, rate = decode_stream(excerpt, stream)
        real[stem] = measure(samples.T, rate)
    print(f"{len(folders)} songs of {arguments.split}: median [quartiles] | excerpt")
    for stem in STREAMS:
        values = np.array([measure(*_read(folder / f"{stem}.wav")) for folder in folders])
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
        print(f"\n{stem}")
        for row, a, b, c, one in zip(ROWS, low, middle, high, real[stem], strict=True):
            print(f"  {row:>9} {b:7.1f} [{a:6.1f} {c:6.1f}] | {one:6.1f}")


def _read(path: Path) -> tuple[Samples, int]:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return samples, rate


if __name__ == "__main__":
    main()
