"""Everything that only a GPU can answer of the scan and the network, by one command.

    python bench/gpu/measure.py [--quick] [--parts parity scan] [--mamba-ssm FOLDER] [-o FILE.json]
    python bench/gpu/measure.py --rehearse LIBRARY [--plugin LIBRARY] -o FILE.json

It needs PyTorch with CUDA, nvcc, NumPy, SciPy and PyYAML, runs from the checkout, installed or
not, and downloads nothing. FOLDER is a checkout of state-spaces/mamba, whose Triton kernels are
the baseline; it need not be installed. A rehearsal runs every part on the CPU, in small, with the
emulated LIBRARY of the tests: it shows that the script works and measures nothing. For a machine
without network, `prepare.sh` lays everything into the checkout; `part1.sh` and `part2.sh` run the
parts in an order that tells soonest what is wrong.

Each part has a process of its own and the JSON is written after each, so that a part that fails,
crashes or hangs loses no other's figures. In the JSON `parts.NAME` has `status` (ok, failed,
skipped or timed out), `reason`, `seconds`, `logged` (warnings: read them) and the part's figures:

    gpu         GPU, driver, compilers, versions; libbsm_scan for this GPU, and what ptxas said
    kernels     first light: what runs in a scan and in a pass of the network, and for how long
    parity      the scan against the float64 reference: types, both paths, odd lengths, extremes,
                and batches of more elements than 32 bits count
    mask        the network's mask in float16 and others against float64, random weights
    scan        the scan's time against mamba_ssm, the chunked form and a copy of its bytes
    network     the folded network eager and as a CUDA graph, batch 1 and 4, against the published
                one in eager PyTorch and the measured floor
    song        four minutes through Separator and a .safetensors engine
    plan        does TensorRT (or TensorRT-RTX) run here at all; plans of the published network:
                time to build, size, time at batch 1, 2 and 4 against the same networks and the
                floor, a song; skipped without TensorRT, CuPy, onnx or onnxscript
    sanitizer   compute-sanitizer's tools over small cases, and over one planted error
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
"""In the order they run; the last two of the worker's are no measurements."""
_FOLDERS = re.compile(r"(?<![\w.])/(?:[\w.+@-]+/)+")  # of an absolute path, not of "GB/s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts, prints the table; returns 1 when a part failed."""
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
        description="Builds, checks and times the scan and network on a GPU.",
    )
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="after gpu (default: all)")
    add("--quick", action="store_true", help="fewer cases, rounds and types")
    add("--mamba-ssm", type=Path, metavar="FOLDER", help="checkout of state-spaces/mamba")
    add("--timeout", type=float, default=900, metavar="S", help="of a part (default: 900)")
    add("--rehearse", type=Path, metavar="LIBRARY", help="on the CPU, with the emulated scan")
    add("--plugin", type=Path, metavar="FILE", help="a rehearsal's libbsm_trt_plugin")
    add("-o", "--output", type=Path, metavar="FILE", help="(default: bench/results/gpu-NAME.json)")
    return parser


def _problem(options: argparse.Namespace) -> str | None:
    """What is wrong with the options, in a sentence."""
    if options.rehearse and not options.output:
        return "a rehearsal needs -o FILE: it measures nothing, and goes into no results."
    if options.rehearse and RESULTS in options.output.resolve().parents:
        return f"a rehearsal measures nothing: its -o must not be in {RESULTS.relative_to(ROOT)}."
    if options.plugin and not options.rehearse:
        return "--plugin is a rehearsal's: elsewhere plans run with that of 'bsm plugin build'."
    for path in (options.rehearse, options.plugin):
        if path and not path.is_file():
            return f"no such library: {path}."
    return None


def _run_parts(options: argparse.Namespace, report: dict[str, Any]) -> bool:
    """Runs the parts one after the other; True when the user interrupted."""
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
            break  # without a GPU or the library all others would say the same
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
    """The exit status of a command, whose whole family is killed when it takes too long: None."""
    # Behind PATH, where CUDA's tools lie when nobody has put them there.
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), f"{home}/bin"])
    # A session of its own: compilers and tools that it starts end with it.
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
