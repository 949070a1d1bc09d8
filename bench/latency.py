"""Time, shares and memory of one chunk on this CPU, for each engine and for other packages.

    python bench/latency.py [--config tiny] [--rounds 5] [--peers] [--profile] [--json]
        [-o bench/results/FILE.json] [--plot FILE.html] [--readme FILE.md]
    python bench/latency.py --from bench/results/FILE.json --readme FILE.md

The second form measures nothing: it writes the table of an earlier run. FILE.md is any Markdown
file with the lines `<!-- latency: begin -->` and `<!-- latency: end -->` around the table.

A chunk takes the same steps as in `bsm infer`: STFT, engine, mask product, inverse STFT. Every row
has a process of its own and the processes take turns, so that a disturbance of the machine affects
all of them; ratios are taken within a round, and the masks are compared in the same run. Absolute
times vary with the machine: quote the ratios. `--peers` adds networks of other packages, with
random weights of the published shapes, in an environment of their own (`peers/catalogue.py`).

The JSON is rewritten after each round (seconds end in _s, a summary is {median, min, max} over
the rounds after the warm-up):

    machine, versions, command, date      where, with what and how; load average at start and end
    complete                              false if the run was interrupted
    model, chunk, rounds, threads         what was computed; model.onnx is the origin of that file
    flops                                 of the network by part
    rates                                 peak rates of the machine: gemm (float32), gemm-int8,
                                          memory
    floor.PRECISION                       the network at those rates, stage by stage (`floor.py`)
    agreement                             relative RMS of each mask to that of `reference`; the
                                          rows whose mask is `wrong`
    base                                  the row that the others are compared with
    engines.NAME, peers.NAME              ms_per_chunk (per --seconds of audio, whatever length the
                                          row takes), real_time_factor (computing over audio time),
                                          share of each part, ratio_to_base (whole chunk),
                                          ratio_to_floor (network alone), peak_memory_mib of the
                                          process, load_s, warm_up and rounds one by one
    growth.length, growth.batch           points, and the line through them (`growth.py`)
    profile.NAME                          ONNX Runtime's profile, by operator and part (`--profile`)
    skipped, failed                       row -> why it has no figures

An engine whose mask is wrong gets no ratios, and the exit status is 1.

The code is in `bench/timing`: measure.py (what runs), turns.py and worker.py (processes that take
turns) and the tasks that they start, figures.py and floor.py, tables.py and plot.py (the output).
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
"""Format of the JSON."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 1 also if a row failed or computes a wrong mask."""
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
    add(
        "--config",
        default="bsmamba2",
        help="name or YAML file of the network (default: %(default)s)",
    )
    add("--weights", type=Path, metavar="FILE", help=".safetensors to use instead of --config")
    add("--onnx", type=Path, metavar="FILE", help="ONNX file of the network (default: export one)")
    add("--int8", type=Path, metavar="FILE", help="int8 ONNX file of it (default: export one)")
    add("--plan", type=Path, metavar="FILE", help="TensorRT plan of it (default: no such row)")
    add("--rounds", type=count, default=5, help="rounds after the warm-up (default: %(default)s)")
    add(
        "--seconds",
        type=_positive(float),
        default=8.0,
        help="seconds of audio in a chunk (default: %(default)s)",
    )
    add(
        "--engines",
        nargs="*",
        choices=list(ENGINES),
        default=list(ENGINES),
        help="engines to measure (default: all)",
    )
    add("--peers", nargs="*", choices=PEERS, help="also measure other networks (no names: all)")
    add("--threads", type=count, help="threads of each process (default: its own choice)")
    add("--profile", action="store_true", help="also profile ONNX Runtime by operator")
    add("--no-growth", dest="growth", action="store_false", help="skip longer songs and batches")
    add(
        "--growth-engine",
        type=Path,
        metavar="FILE",
        help="engine for songs and batches (default: the embedded engine)",
    )
    add("--lengths", nargs="+", type=count, default=LENGTHS, help="lengths of songs in chunks")
    add("--batches", nargs="+", type=count, default=BATCHES, help="sizes of batches in chunks")
    add("--json", action="store_true", help="print the JSON instead of the table")
    add("-o", "--output", type=Path, metavar="FILE", help="also write the JSON to this file")
    add("--plot", type=_page, metavar="FILE", help="also write a page of plots (.html)")
    add(
        "--readme",
        type=Path,
        metavar="FILE",
        help="write the table between the markers in this Markdown file",
    )
    add(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="measure nothing: take this JSON of an earlier run",
    )
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
    """Reads a report that `-o` wrote; raises BsmError for anything else."""
    try:
        report: Any = json.loads(existing_file(path).read_text("utf-8"))
    except ValueError as error:
        raise BsmError(f"{path} is not JSON: name a file that -o wrote.") from error
    if not isinstance(report, dict) or report.get("benchmark") != "latency":
        raise BsmError(f"{path} is not a report of this benchmark: name a file that -o wrote.")
    if report.get("format") != FORMAT:
        raise BsmError(f"{path} has format {report.get('format')}, not {FORMAT}: measure again.")
    return report


if __name__ == "__main__":
    sys.exit(main())
