"""SIGKILL at random moments, and disks that are full at any byte, against the real commands.

    python tests/robustness/faults.py [--kills 100] [--sizes 24] [--seed 0] [-o FILE.json]

Runs of `bsm infer FOLDER` and of `bsm train`, both with a tiny network, are killed at random
moments within the time of an undisturbed run. After each kill every file under a final name must be
complete, and another run of the same command must complete the work: the same samples, the same
weights to the bit, the right report, no temporary file left. The same must hold on file systems of
every size, from no bytes to as many as the work takes (mounting them needs root).

The time of a kill depends only on the seed and the kill's number; what the run does at that time
depends on the machine as well. The exit code is 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import faults_infer
import faults_train
from commands import start
from disks import can_mount

from bench.common.report import report_head, write_report

_INFER_BYTES = 5_200_000
"""Size of the stems, and some more."""
_TURN = 10  # kills of one command before those of the other


def main() -> int:
    """Runs all faults; prints and writes the results."""
    options = _parser().parse_args()
    start = time.monotonic()
    results = []
    # After a Ctrl-C, the results so far count.
    with (
        tempfile.TemporaryDirectory(prefix="faults-") as folder,
        contextlib.suppress(KeyboardInterrupt),
    ):
        for result in run_faults(Path(folder), options.seed, options.kills, options.sizes):
            results.append(result)
            verdict = f"WRONG {json.dumps(result)}" if result["wrong"] else "right"
            line = f"{len(results)} {result['kind']}, {result['stage']}: {verdict}"
            print(line, file=sys.stderr, flush=True)
    report = {
        **report_head(__file__, sys.argv[1:]),
        "seed": options.seed,
        "elapsed_s": round(time.monotonic() - start, 1),
        "mounted": can_mount(),
        "kinds": summary(results),
    }
    if options.output:
        write_report(options.output, report)
    print(json.dumps(report["kinds"], indent=2))
    return 1 if any(result["wrong"] for result in results) else 0


def run_faults(work: Path, seed: int, kills: int, sizes: int) -> Iterator[dict[str, Any]]:
    """Runs all faults, one after another, in an empty folder; yields a result for each."""
    places = [work / name for name in ("infer", "train")]
    for place in places:
        place.mkdir()
    start(["--version"], work).end()  # so that no timed run waits for imports
    folder = faults_infer.Folder(places[0], seed)
    training = faults_train.Training(places[1], seed)
    for first in range(0, kills, _TURN):
        count = min(_TURN, kills - first)
        for number in range(first, first + count):
            yield faults_infer.kill(folder, Random(f"infer {seed} {number}"), number)
        yield from faults_train.kills(training, Random(f"train {seed} {first}"), count)
    if not can_mount():
        return
    for number in range(sizes):
        share = number / max(1, sizes - 1)
        format = "wav" if number % 2 else "flac"
        yield faults_infer.fill(folder, format, 4096 + round(share * _INFER_BYTES))
        yield faults_train.fill(training, 4096 + round(share * 1.5 * training.bytes))


def summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Summarises by kind: faults, their stages, temporary files left, and what was wrong."""
    kinds = {}
    for kind in dict.fromkeys(result["kind"] for result in results):
        of_kind = [result for result in results if result["kind"] == kind]
        kinds[kind] = {
            "faults": len(of_kind),
            "stages": dict(Counter(result["stage"] for result in of_kind).most_common()),
            "temporary_files_left_by_kills": sum(result["left"] for result in of_kind),
            "wrong": sum(bool(result["wrong"]) for result in of_kind),
            "bugs": [result for result in of_kind if result["wrong"]][:20],
        }
    return kinds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Kill the real commands, and fill their disks.")
    parser.add_argument(
        "--kills", type=int, default=100, help="kills of each command (default: 100)"
    )
    parser.add_argument("--sizes", type=int, default=24, help="number of disk sizes (default: 24)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of all random choices (default: 0)"
    )
    parser.add_argument("-o", "--output", type=Path, help="also write the report to this JSON file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
