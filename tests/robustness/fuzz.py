"""Runs the real commands on hostile files: each must succeed, or fail with one sentence.

    python tests/robustness/fuzz.py [--cases 1000] [--seed 0] [--case N] [--first N] [-o FILE.json]

Cases are audio in every container, damaged, joined or with a wrong suffix, hostile names, data
folders, checkpoints (pickles that call functions, zip bombs), safetensors, ONNX files, plans and
sidecars, training runs and YAML. A case depends only on the seed and its number, and runs in a
process of its own with limits on memory and processor time. `--case N` runs a single case and
prints its whole result.

A command may exit with code 0, or with 1 or 2 and one sentence on stderr. Everything else is wrong:
tracebacks, "unexpected" errors, crashes, more time or memory than the limits, files outside the
output folder, incomplete files in it, processes, sockets, functions that pickles call, messages of
libraries, stems that are not as long as their song, and intact songs that are refused. The exit
code is 1 if any case was wrong.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from commands import Forked
from fuzz_corpus import keep_corpus, make_corpus
from fuzz_worker import GOOD, run_one

from bench.common.report import report_head, write_report

MEMORY_MIB = 1024
"""Address space that a case may take in addition to the imports."""
CPU_S = 10
"""Processor time of a case."""
WALL_S = 60
"""Wall time of a case, in case it is blocked; generous, as the machine may be busy."""
_SHOWN = 20  # bugs that the JSON lists


def main() -> int:
    """Runs cases; prints and writes the results."""
    options = _parser().parse_args()
    last = options.first + options.cases
    numbers = range(options.first, last) if options.case is None else [options.case]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        work, corpus = Path(folder), options.corpus or Path(folder) / "corpus"
        if not (corpus / "corpus.json").exists():
            corpus.mkdir(parents=True, exist_ok=True)
            keep_corpus(make_corpus(corpus.absolute()))
        start = time.monotonic()
        results = []
        for result in run_cases(work, corpus.absolute(), options.seed, numbers):
            results.append(result)
            if result["outcome"] not in GOOD:
                what = f"case {result['case']}, {result['kind']}, {shlex.join(result['arguments'])}"
                print(f"{result['outcome']}: {what[:300]}\n    {result['detail']}", file=sys.stderr)
    report = {
        **report_head(__file__, sys.argv[1:]),
        "seed": options.seed,
        "limits": {"memory_mib": MEMORY_MIB, "cpu_s": CPU_S, "wall_s": WALL_S},
        "elapsed_s": round(time.monotonic() - start, 1),
        **summary(results),
    }
    if options.output:
        write_report(options.output, report)
    shown = results if options.case is not None else {k: report[k] for k in ("kinds", "largest")}
    print(json.dumps(shown, indent=2))
    print(f"{report['cases']} cases with seed {options.seed}: {report['wrong']} wrong.")
    return 0 if report["wrong"] == 0 else 1


def run_cases(
    work: Path,
    corpus: Path,
    seed: int,
    numbers: Sequence[int],
    run: Callable[..., None] = run_one,
) -> Iterator[dict[str, Any]]:
    """Runs cases one after another; yields a result for each, in order.

    Args:
        work: An empty folder.
        corpus: A folder that `keep_corpus` has written.
        seed: Seed of all cases.
        numbers: Numbers of the cases.
        run: The function that makes, runs and judges a case.

    Yields:
        case, kind, arguments, outcome, detail, and if it ended: wall_s, cpu_s, memory_mib.
    """
    for number in numbers:
        for name in ("case", "result"):
            (work / name).unlink(missing_ok=True)
        process = Forked(run, seed, number, corpus, work, MEMORY_MIB, CPU_S, said=work / "said")
        try:
            ended = process.end(WALL_S)
        except TimeoutError as error:
            came = {"outcome": "hang", "detail": str(error)}
        else:
            outcome = "hang" if ended.code == -signal.SIGXCPU else "crash"
            came = {"outcome": outcome, "detail": f"exit code {ended.code} {ended.err[-1000:]}"}
            if ended.code == 0 and (work / "result").exists():
                came = json.loads((work / "result").read_text())
        known = {"case": number, "kind": "unknown", "arguments": []}
        if (work / "case").exists():
            known = json.loads((work / "case").read_text())
        yield known | came


def summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts by kind and outcome, the largest figures, and the bugs."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        kinds[result["kind"]][result["outcome"]] += 1
    wrong = [result for result in results if result["outcome"] not in GOOD]
    ended = [result for result in results if "wall_s" in result]
    largest = {}
    for figure in ("wall_s", "cpu_s", "memory_mib"):
        most = max(ended, key=lambda result: result[figure], default=None)
        if most:
            largest[figure] = {"value": most[figure], "case": most["case"], "kind": most["kind"]}
    return {
        "cases": len(results),
        "wrong": len(wrong),
        "outcomes": dict(Counter(result["outcome"] for result in results).most_common()),
        "kinds": {kind: dict(counts.most_common()) for kind, counts in sorted(kinds.items())},
        "largest": largest,
        "bugs": wrong[:_SHOWN],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Run the real commands on hostile files.")
    parser.add_argument("--cases", type=int, default=1000, help="number of cases (default: 1000)")
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first case (default: 0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all cases (default: 0)")
    parser.add_argument("--case", type=int, help="run this case only, and print its whole result")
    parser.add_argument(
        "--corpus", type=Path, help="keep the intact files in this folder for other runs"
    )
    parser.add_argument("-o", "--output", type=Path, help="also write the report to this JSON file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
