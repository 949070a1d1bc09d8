"""Hostile files through the real commands: each must end in success or in one sentence.

    python tests/robustness/fuzz.py [--cases 1000] [--seed 0] [--case N] [--first N] [-o FILE.json]

Cases are damaged audio of every container, names, data folders, checkpoints (pickles that call,
archives that swell), safetensors, ONNX files, plans and sidecars, runs of training, YAML. A case is
a function of the seed and its number. Cases run one after another in a process with limits of
memory and of processor time; one that crashes or hangs costs that process, and the next case gets
a new one. `--case N` runs one case alone, prints all of it and keeps its folder.

Right are an exit code 0; and 1 or 2 with one sentence on stderr. Wrong are tracebacks, "unexpected"
errors, crashes, more time or memory than the limits, files outside the output folder, half files
in it, processes, sockets, calls of pickles, and the noise of libraries. The exit code is 1 if any
case was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fuzz_corpus import keep_corpus, make_corpus
from fuzz_judge import GOOD

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout

from bench.common.report import report_head, write_report

MEMORY_MIB = 1024
"""Address space that a case may take beside the imports."""
CPU_S = 10
"""Processor time of a case."""
WALL_S = 60
"""Time of a case, for one that waits for something; generous, as the machine may be busy."""
_START_S = 600
"""Time of a worker's imports."""
_HERE = Path(__file__).parent
_SHOWN = 20  # bugs that the JSON names


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs cases, prints and writes what came of them."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        work, corpus = Path(folder), options.corpus or Path(folder) / "corpus"
        if not (corpus / "corpus.json").exists():
            corpus.mkdir(parents=True, exist_ok=True)
            keep_corpus(make_corpus(corpus.absolute()))
        last = options.first + options.cases
        numbers = range(options.first, last) if options.case is None else [options.case]
        start = time.monotonic()
        results = list(run_cases(work, corpus, options.seed, numbers, _bugs_to_stderr))
        elapsed_s = time.monotonic() - start
    report = {
        **report_head(__file__, arguments),
        "seed": options.seed,
        "limits": {"memory_mib": MEMORY_MIB, "cpu_s": CPU_S, "wall_s": WALL_S},
        "elapsed_s": round(elapsed_s, 1),
        **summary(results),
    }
    if options.output:
        write_report(options.output, report)
    if options.case is not None:
        print(json.dumps(results, indent=2))
    print(_table(report))
    return 0 if report["wrong"] == 0 else 1


def run_cases(
    work: Path,
    corpus: Path,
    seed: int,
    numbers: Sequence[int],
    tell: Callable[[dict[str, Any]], None] = lambda result: None,
) -> Iterator[dict[str, Any]]:
    """Runs cases in worker processes; a result for each, in order.

    Args:
        work: An empty folder.
        corpus: Where `keep_corpus` left one.
        seed: Of all cases.
        numbers: Which.
        tell: Gets every result that is wrong.

    Yields:
        case, kind, arguments, outcome, detail, and if it ended: wall_s, cpu_s, memory_mib.
    """
    worker: _Worker | None = None
    for number in numbers:
        worker = worker or _Worker(work, corpus, seed)
        result = worker.run(number)
        if "wall_s" not in result:
            worker.end()
            worker = None
        if result["outcome"] not in GOOD:
            tell(result)
        yield result
    if worker:
        worker.end()


class _Worker:
    """A process that runs cases."""

    def __init__(self, work: Path, corpus: Path, seed: int) -> None:
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",  # each reserves 64 MiB of the address space that is counted
            "XDG_CACHE_HOME": str(work / "cache"),
            "PYTHONWARNINGS": "default,ignore::DeprecationWarning",  # nobody is shown those
        }
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(_HERE / "fuzz_worker.py"),
                str(work),
                str(corpus.absolute()),
                str(seed),
                str(MEMORY_MIB),
                str(CPU_S),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=work,
        )
        self._work = work
        self._buffer = b""
        if not self._line(_START_S):
            raise RuntimeError(f"No worker: {self._death(silent=False)['detail']}")

    def run(self, number: int) -> dict[str, Any]:
        """Runs a case; without figures if it ended the process."""
        assert self._process.stdin
        self._process.stdin.write(f"{number}\n".encode())
        self._process.stdin.flush()
        result: dict[str, Any] = {"case": number, "kind": "unknown", "arguments": []}
        for _ in range(2):
            line = self._line(WALL_S)
            if not line:
                return result | self._death(silent=line is None)
            result |= json.loads(line)
        return result

    def _line(self, timeout_s: float) -> bytes | None:
        """A line of the process; nothing if it ends, None if it is silent for too long."""
        assert self._process.stdout
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            wait = deadline - time.monotonic()
            if wait <= 0 or not select.select([self._process.stdout], [], [], wait)[0]:
                return None
            block = os.read(self._process.stdout.fileno(), 1 << 16)
            if not block:
                return b""
            self._buffer += block
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def _death(self, *, silent: bool) -> dict[str, Any]:
        if silent:
            return {"outcome": "hang", "detail": f"more than {WALL_S} s"}
        code = self._process.wait(WALL_S)
        if code == -signal.SIGXCPU:
            return {"outcome": "hang", "detail": f"more than {CPU_S} s of processor time"}
        said = (self._work / f"stderr-{self._process.pid}").read_text(errors="replace")[-1000:]
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return {"outcome": "crash", "detail": f"{name} {said}".strip()}

    def end(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        for stream in ("stdout", "stderr"):
            (self._work / f"{stream}-{self._process.pid}").unlink(missing_ok=True)


def summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts by kind and outcome, the largest figures, the bugs."""
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


def _table(report: dict[str, Any]) -> str:
    rows = [
        f"{kind:18} {sum(counts.values()):6}  "
        + ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        for kind, counts in report["kinds"].items()
    ]
    largest = ", ".join(
        f"{name} {entry['value']} (case {entry['case']}, {entry['kind']})"
        for name, entry in report["largest"].items()
    )
    head = f"{report['cases']} cases of seed {report['seed']} in {report['elapsed_s']} s"
    return "\n".join([*rows, f"Most: {largest}", f"{head}: {report['wrong']} wrong."])


def _bugs_to_stderr(result: dict[str, Any]) -> None:
    what = f"case {result['case']}, {result['kind']}, {shlex.join(result['arguments'])[:300]}"
    print(f"{result['outcome']}: {what}\n    {result['detail']}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Hostile files through the real commands.")
    parser.add_argument("--cases", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="of all cases (default: 0)")
    parser.add_argument("--case", type=int, help="only this one, all of it printed")
    parser.add_argument("--corpus", type=Path, help="keep the intact files here for another run")
    parser.add_argument("-o", "--output", type=Path, help="also write a JSON here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
