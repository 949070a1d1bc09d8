"""Builds, checks and times, in one command, everything about scan and network that needs a GPU.

    python bench/gpu/measure.py [--quick] [--parts parity scan] [--mamba-ssm FOLDER] [-o FILE.json]
    python bench/gpu/measure.py --rehearse LIBRARY [--plugin LIBRARY] -o FILE.json

It needs PyTorch with CUDA, nvcc, NumPy, SciPy and PyYAML, runs from the checkout, installed or
not, and downloads nothing. FOLDER is a checkout of state-spaces/mamba, whose Triton kernels are
the baseline; it need not be installed. A rehearsal runs every part on the CPU, at small sizes, with
the emulated LIBRARY of the tests: it shows that the script works, and measures nothing. For a
machine without network access, `prepare.sh` puts everything needed into the checkout; `part1.sh`
and `part2.sh` run the parts in the order that reveals problems soonest.

Each part runs in a process of its own and the JSON is written after each, so that a part that
fails, crashes or hangs does not lose the figures of the others. In the JSON, `parts.NAME` has
`status` (ok, failed, skipped or timed out), `reason`, `seconds`, `logged` (warnings: read them) and
the part's figures:

    gpu         GPU, driver, compilers, versions; libbsm_scan for this GPU, and the log of ptxas
    kernels     which kernels run in a scan and in a pass of the network, and for how long
    parity      the scan against the float64 reference: types, both paths, odd lengths, extremes,
                and batches with more elements than 32 bits can count
    mask        the network's mask in float16 and other types against float64, random weights
    scan        the scan's time against mamba_ssm, the chunked form and a copy of its bytes
    network     the folded network, eager and as a CUDA graph, batch 1 and 4, against the network as
                published in eager PyTorch, and against the measured floor
    song        four minutes through Separator and a .safetensors engine
    plan        whether TensorRT (or TensorRT-RTX) runs here at all; plans of the full-size network:
                time to build, size, time at batch 1, 2 and 4 against the same networks and the
                floor, a song; skipped without TensorRT, CuPy, onnx or onnxscript
    sanitizer   compute-sanitizer's tools on small cases, and on one planted error
    profile     ncu's sections for the scan's kernels at the model's sizes

Reading order: this file, worker.py (one part's process), part.py, clock.py (turns and times),
machine.py, scan.py, network.py, song.py, plan.py, watched.py (sanitizer, ncu), report.py (table).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout

from bench.common.report import ROOT, report_head, write_report
from bench.gpu.report import lines
from bench.gpu.worker import FUNCTIONS

RESULTS = ROOT / "bench" / "results"
WORKER = Path(__file__).with_name("worker.py")
PARTS = tuple(FUNCTIONS)[:-2]
"""Parts in the order they run; the last two functions of the worker are not measurements."""
_FOLDERS = re.compile(r"(?<![\w.])/(?:[\w.+@-]+/)+")  # folders of an absolute path; spares "GB/s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts and prints the table; returns 1 if a part failed."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    if problem := _problem(options):
        print(f"Error: {problem}", file=sys.stderr)
        return 2
    parts: dict[str, Any] = {}
    report = report_head(__file__, arguments)
    report |= {"rehearsal": options.rehearse is not None, "quick": options.quick, "parts": parts}
    interrupted = _run_parts(options, report)
    print("\n" + "\n".join(lines(report)))
    if interrupted:
        return 130
    return 1 if any(part["status"] in ("failed", "timed out") for part in parts.values()) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench/gpu/measure.py",
        description="Build, check and time the scan and the network on a GPU.",
    )
    add = parser.add_argument
    add(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=PARTS,
        help="parts to run after gpu (default: all)",
    )
    add("--quick", action="store_true", help="fewer cases, rounds and types")
    add("--mamba-ssm", type=Path, metavar="FOLDER", help="checkout of state-spaces/mamba")
    add(
        "--timeout",
        type=float,
        default=900,
        metavar="S",
        help="time limit of a part (default: 900)",
    )
    add("--rehearse", type=Path, metavar="LIBRARY", help="run on the CPU, with an emulated scan")
    add("--plugin", type=Path, metavar="FILE", help="libbsm_trt_plugin of a rehearsal")
    add(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the JSON (default: bench/results/gpu-NAME.json)",
    )
    return parser


def _problem(options: argparse.Namespace) -> str | None:
    """What is wrong with the options, in a sentence; None if nothing is."""
    if options.rehearse and not options.output:
        return "a rehearsal needs -o FILE: it measures nothing, so it has no place in the results."
    if options.rehearse and RESULTS in options.output.resolve().parents:
        return f"a rehearsal measures nothing: its -o must not be in {RESULTS.relative_to(ROOT)}."
    if options.plugin and not options.rehearse:
        return "--plugin is for a rehearsal: otherwise plans use that of 'bsm plugin build'."
    for path in (options.rehearse, options.plugin):
        if path and not path.is_file():
            return f"no such library: {path}."
    return None


def _run_parts(options: argparse.Namespace, report: dict[str, Any]) -> bool:
    """Runs the parts one after another; True if the user interrupted them."""
    library = str(options.rehearse.resolve()) if options.rehearse else ""
    for name in PARTS:
        if name != "gpu" and name not in options.parts:
            continue
        print(f"{name}:", flush=True)
        try:
            part = _run_part(name, library, options)
        except KeyboardInterrupt:
            return True
        library = part.pop("library", library)
        print(f"  {part['status']}{': ' + part['reason'] if 'reason' in part else ''}", flush=True)
        report["parts"][name] = json.loads(_FOLDERS.sub("", json.dumps(part)))
        _write(options, report)
        if name == "gpu" and part["status"] != "ok":
            break  # without a GPU or the library, all others would fail alike
    return False


def _run_part(name: str, library: str, options: argparse.Namespace) -> dict[str, Any]:
    start_s = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bsm-gpu-") as folder:
        result = Path(folder) / "result.json"
        job = {
            "part": name,
            "result": str(result),
            "library": library,
            "mamba_ssm": str(options.mamba_ssm.resolve()) if options.mamba_ssm else "",
            "plugin": str(options.plugin.resolve()) if options.plugin else "",
            "rehearsal": options.rehearse is not None,
            "quick": options.quick,
        }
        status = _process([sys.executable, str(WORKER), json.dumps(job)], options.timeout)
        values: dict[str, Any] = json.loads(result.read_text()) if result.exists() else {}
    reason, skipped = values.pop("error", None), values.pop("skipped", None)
    if status is None:
        word, reason = "timed out", f"it ran longer than {options.timeout:g} s"
    elif skipped:
        word, reason = "skipped", skipped
    elif status == 0:
        word = "ok"
    else:
        word, reason = "failed", reason or f"its process ended with exit status {status}"
    head = {"status": word, "seconds": round(time.perf_counter() - start_s, 1)}
    return head | ({"reason": reason} if reason else {}) | values


def _process(command: Sequence[str], timeout_s: float) -> int | None:
    """The exit status of a command; None if it took too long and was killed with its children."""
    # The usual folder of CUDA's tools, in case PATH lacks it.
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), f"{home}/bin"])
    # In a session of its own, so that the compilers and tools that it starts can be killed, too.
    process = subprocess.Popen(
        command, start_new_session=True, env=os.environ | {"PYTHONUNBUFFERED": "1", "PATH": path}
    )
    try:
        return process.wait(timeout_s)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return None
        raise


def _write(options: argparse.Namespace, report: dict[str, Any]) -> None:
    name = report["parts"]["gpu"].get("name", "unknown")
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower().removeprefix("nvidia ")).strip("-")
    path = options.output or RESULTS / f"gpu-{slug}.json"
    if options.output or report["parts"]["gpu"]["status"] == "ok":
        write_report(path.resolve(), report)


if __name__ == "__main__":
    sys.exit(main())
