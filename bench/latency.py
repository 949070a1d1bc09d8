"""Seconds, shares and memory of one chunk on this CPU: engine against engine, and others.

    python bench/latency.py [--config tiny] [--rounds 5] [--peers] [--profile] [--json]
        [-o bench/results/FILE.json] [--plot FILE.html] [--readme README.md]
    python bench/latency.py --from bench/results/FILE.json --readme README.md

A chunk's way is that of `bsm infer`: STFT, engine, mask product, inverse STFT. Every row has a
process of its own and computes when it is its turn, so that what disturbs the machine disturbs
all alike; ratios are made within a round, and the masks are compared in the same run. Absolute
times move with the machine: quote the ratios. `--peers` lets networks of other packages take
their turns, too, with random weights of the published shapes, in an environment of their own
(`peers/catalogue.py` says which).

The JSON is written anew after each round (seconds end in _s, a summary is {median, min, max} over
the rounds after the warm-up):

    machine, versions, command, date      where, with what and how; load average at start and end
    complete                              false in what a run left that did not come to its end
    model, chunk, rounds, threads         what was computed; model.onnx says where the file is from
    flops                                 of the network by part
    rates                                 gemm (float32), gemm-int8, memory: what the machine can
    floor.PRECISION                       the network at those rates, stage by stage (`floor.py`)
    agreement                             relative RMS of the masks to `reference`; who is `wrong`
    base                                  the row that the others are measured against
    engines.NAME, peers.NAME              ms_per_chunk (per --seconds of audio, whatever the length
                                          it takes), real_time_factor (computing over audio time),
                                          share of each part, ratio_to_base (whole chunk),
                                          ratio_to_floor (network alone), peak_memory_mib of the
                                          process, load_s, warm_up and rounds one by one
    growth.length, growth.batch           points, and the line through them (`growth.py`)
    profile.NAME                          ONNX Runtime's, by operator and part (`--profile`)
    skipped, failed                       row -> why it is not there

An engine whose mask is wrong gets no ratio, and the exit status is 1.

The code is in `bench/timing`: measure.py (what runs), turns.py and worker.py (processes in turn)
and what they start, figures.py and floor.py, tables.py and plot.py (for people).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the checkout

from bench.common.report import replace_block, report_head, write_report
from bench.timing.growth import BATCHES, LENGTHS
from bench.timing.measure import ENGINES, measure
from bench.timing.peers.catalogue import NAMES as PEERS
from bench.timing.plot import write_plot
from bench.timing.tables import BEGIN, END, lines, readme_table
from bsmamba2.errors import BsmError
from bsmamba2.system.atomic import write_atomic
from bsmamba2.system.files import existing_file

FORMAT = 2
"""Of the JSON."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 1 also when a row failed or computes another mask."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    options.peers = () if options.peers is None else options.peers or PEERS

    def save(report: dict[str, Any]) -> None:
        if options.output:
            write_report(options.output, report)

    try:
        if options.source:
            report = read_report(options.source)
        else:
            head = report_head(__file__, arguments, FORMAT)
            report = measure(options, head, save)
            save(report)
        if options.plot:
            write_plot(options.plot, report)
        if options.readme:
            block = replace_block(options.readme, BEGIN, END, readme_table(report))
            write_atomic(options.readme, block)
    except BsmError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    print(json.dumps(report, indent=2) if options.json else "\n".join(lines(report)))
    return 1 if report["failed"] or report["agreement"]["wrong"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench/latency.py", description="Latency of one chunk on this CPU, by engine."
    )
    add, count = parser.add_argument, _positive(int)
    add("--config", default="bsmamba2", help="network of random weights (default: %(default)s)")
    add("--weights", type=Path, metavar="FILE", help=".safetensors to take in place of --config")
    add("--onnx", type=Path, metavar="FILE", help="ONNX file of it; without, one is exported")
    add("--int8", type=Path, metavar="FILE", help="int8 ONNX file of it; likewise")
    add("--plan", type=Path, metavar="FILE", help="TensorRT plan of it; without, no such row")
    add("--rounds", type=count, default=5, help="after the warm-up (default: %(default)s)")
    add("--seconds", type=_positive(float), default=8.0, help="of audio (default: %(default)s)")
    add("--engines", nargs="*", choices=list(ENGINES), default=list(ENGINES), help="(default: all)")
    add("--peers", nargs="*", choices=PEERS, help="others, too (without names: all)")
    add("--threads", type=count, help="of each process (default: its own choice)")
    add("--profile", action="store_true", help="ONNX Runtime's time by operator, too")
    add("--no-growth", dest="growth", action="store_false", help="one chunk only")
    add("--growth-engine", type=Path, metavar="FILE", help="(default: the embedded engine)")
    add("--lengths", nargs="+", type=count, default=LENGTHS, help="of songs, chunks")
    add("--batches", nargs="+", type=count, default=BATCHES, help="chunks")
    add("--json", action="store_true", help="print JSON in place of the table")
    add("-o", "--output", type=Path, metavar="FILE", help="write the JSON to a file, too")
    add("--plot", type=_page, metavar="FILE", help="draw a page, .html")
    add("--readme", type=Path, metavar="FILE", help="put the table between its markers there")
    add("--from", dest="source", type=Path, metavar="FILE", help="a JSON: measure nothing")
    return parser


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} must be above 0")
        return value

    return number


def _page(text: str) -> Path:
    if not text.endswith(".html"):
        raise argparse.ArgumentTypeError(f"{text} must end in .html")
    return Path(text)


def read_report(path: Path) -> dict[str, Any]:
    """What `-o` wrote; raises BsmError for anything else."""
    try:
        report: Any = json.loads(existing_file(path).read_text("utf-8"))
    except ValueError as error:
        raise BsmError(f"{path} is no JSON: name what -o wrote.") from error
    if not isinstance(report, dict) or report.get("benchmark") != "latency":
        raise BsmError(f"{path} is no report of this benchmark: name what -o wrote.")
    if report.get("format") != FORMAT:
        raise BsmError(f"{path} has format {report.get('format')}, not {FORMAT}: measure again.")
    return report


if __name__ == "__main__":
    sys.exit(main())
