"""Everything that only a GPU can answer of the scan and the network, by one command.

    python bench/gpu/measure.py [--quick] [--parts parity scan] [--mamba-ssm FOLDER] [-o FILE.json]
    python bench/gpu/measure.py --rehearse LIBRARY [--plugin LIBRARY] -o FILE.json

It needs PyTorch with CUDA, nvcc, NumPy, SciPy and PyYAML, runs from the checkout, installed or
not, and downloads nothing. FOLDER is a checkout of state-spaces/mamba, whose Triton kernels are
the baseline; it need not be installed. A rehearsal runs every part on the CPU, in small, with the
emulated LIBRARY of the tests: it shows that the script works and measures nothing. For a machine
without network, `gpu/prepare.sh` lays everything beside the checkout; `gpu/part1.sh` and
`part2.sh` run the parts in an order that tells soonest what is wrong.

Each part has a process of its own and the JSON is written after each, so that a part that fails,
crashes or hangs loses no other's figures. In the JSON `parts.NAME` has `status` (ok, failed,
skipped or timed out), `reason`, `seconds`, `logged` (warnings: read them) and the part's figures:

    gpu         GPU, driver, compilers, versions
    build       libbsm_scan for this GPU, and what ptxas said of its kernels
    parity      the scan against the float64 reference: types, both paths, odd lengths, extremes,
                and batches of more elements than 32 bits count
    scan        the scan's time against mamba_ssm, the chunked form and a copy of its bytes
    mask        the network's mask in float16 and others against float64, random weights
    network     the folded network eager and as a CUDA graph, batch 1 and 4, against the published
                one in eager PyTorch, the measured floor, and the longest kernels
    song        four minutes through Separator and a .safetensors engine
    plan        a TensorRT plan: time to build, size, its time at batch 1, 2 and 4 against the
                same networks and the floor, a song; skipped without TensorRT (or TensorRT-RTX)
                and CuPy. Of the --onnx files, else of the published network where onnx and
                onnxscript can export it, else of the embedded engine
    sanitizer   compute-sanitizer's tools over small cases, and over one planted error
    profile     ncu's sections for the scan's kernels at the model's sizes

Reading order: this file, gpu_worker.py (one part's process), gpu_part.py, gpu_clock.py (turns and
times), gpu_scan.py with scans.py, gpu_network.py, gpu_song.py, gpu_plan.py, gpu_sanitizer.py
and gpu_profile.py with gpu_sanitized.py, gpu_machine.py, gpu_report.py (table), checkout.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout

from bench.common.checkout import ROOT
from bench.gpu.report import lines
from bench.gpu.worker import FUNCTIONS

FORMAT = 1
"""Of the JSON."""
RESULTS = ROOT / "bench" / "results"
WORKER = Path(__file__).with_name("gpu_worker.py")
_FOLDERS = re.compile(r"(?<![\w.])/(?:[\w.+@-]+/)+")  # of an absolute path, not of "GB/s"
_NEED_LIBRARY = ("parity", "sanitizer", "scan", "profile")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts, prints the table; returns 1 when a part failed."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    if problem := _problem(options):
        print(f"Error: {problem}", file=sys.stderr)
        return 2
    from bench.common.report import report_head

    report = report_head("gpu", arguments, FORMAT)
    report |= {"rehearsal": options.rehearse is not None, "quick": options.quick, "parts": {}}
    interrupted = _run_parts(options, report)
    print("\n" + "\n".join(lines(report)))
    if interrupted:
        return 130
    failed = any(part["status"] in ("failed", "timed out") for part in report["parts"].values())
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench/gpu/measure.py",
        description="Builds, checks and times the scan and network on a GPU.",
    )
    add = parser.add_argument
    parts = tuple(FUNCTIONS)[1:]
    add("--parts", nargs="+", choices=parts, default=parts, help="(default: all)")
    add("--quick", action="store_true", help="fewer cases, rounds and types")
    add("--mamba-ssm", type=Path, metavar="FOLDER", help="checkout of state-spaces/mamba")
    add("--library", type=Path, metavar="FILE", help="libbsm_scan to take; builds none")
    add("--onnx", nargs="+", type=Path, default=(), metavar="FILE", help="to build plans of")
    add("--plugin", type=Path, metavar="FILE", help="a rehearsal's libbsm_trt_plugin")
    add("--sanitizer", metavar="PROGRAM", help="(default: compute-sanitizer, where installed)")
    add("--ncu", metavar="PROGRAM", help="(default: ncu, where installed)")
    add("--driver", metavar="FILE", help="CUDA driver for what these two watch")
    add("--timeout", type=float, default=900, metavar="S", help="of a part (default: 900)")
    add("--rehearse", type=Path, metavar="LIBRARY", help="on the CPU, with the emulated scan")
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
    for path in (options.library, options.rehearse, options.plugin):
        if path and not path.is_file():
            return f"no such library: {path}."
    for path in options.onnx:
        if not path.is_file():
            return f"no such file: {path}."
    return None


def _run_parts(options: argparse.Namespace, report: dict[str, Any]) -> bool:
    """Runs the parts one after the other; True when the user interrupted."""
    named = options.library or options.rehearse
    library = str(named.resolve()) if named else ""
    wanted = ["gpu", *(name for name in FUNCTIONS if name in options.parts)]
    if not library and "build" not in wanted:
        wanted.insert(1, "build")
    for name in wanted:
        print(f"{name}:", flush=True)
        if name in _NEED_LIBRARY and not library:
            part: dict[str, Any] = {"status": "skipped", "reason": "there is no scan library"}
        else:
            try:
                part = _run_part(name, library, options)
            except KeyboardInterrupt:
                return True
        library = part.pop("library", library)
        if not part.get("reason"):
            part.pop("reason", None)
        print(f"  {part['status']}{': ' + part['reason'] if 'reason' in part else ''}", flush=True)
        report["parts"][name] = part
        _write(options, report)
        if name == "gpu" and part["status"] != "ok":
            break  # without PyTorch or a GPU all others would say the same
    return False


def _run_part(name: str, library: str, options: argparse.Namespace) -> dict[str, Any]:
    start_s = time.perf_counter()
    tools = {"sanitizer": "compute-sanitizer", "ncu": "ncu"}
    if options.rehearse:
        tools = dict.fromkeys(tools, "")
    with tempfile.TemporaryDirectory(prefix="bsm-gpu-") as folder:
        result = Path(folder) / "result.json"
        job = {
            "part": name,
            "result": str(result),
            "library": library,
            "mamba_ssm": str(options.mamba_ssm.resolve()) if options.mamba_ssm else "",
            **{name: _program(getattr(options, name) or tools[name]) for name in tools},
            "driver": options.driver or "",
            "onnx": [str(path.resolve()) for path in options.onnx],
            "plugin": str(options.plugin.resolve()) if options.plugin else "",
            "rehearsal": options.rehearse is not None,
            "quick": options.quick,
        }
        status = _process([sys.executable, str(WORKER), json.dumps(job)], options.timeout)
        values: dict[str, Any] = json.loads(result.read_text()) if result.exists() else {}
        values = _without_folders(values)
    reason, skipped = values.pop("error", None), values.pop("skipped", None)
    if status is None:
        word, reason = "timed out", f"it ran longer than {options.timeout:g} s"
    elif skipped:
        word, reason = "skipped", skipped
    elif status == 0:
        word = "ok"
    else:
        word, reason = "failed", reason or f"its process ended with exit status {status}"
    head = {"status": word, "reason": reason, "seconds": round(time.perf_counter() - start_s, 1)}
    return head | values


def _program(name: str) -> str:
    """The path of a program, "" where there is none."""
    return (shutil.which(name, path=_search_path()) if name else None) or ""


def _search_path() -> str:
    """PATH, and behind it where CUDA's tools lie when nobody has put them there."""
    homes = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")
    folders = [f"{home}/bin" for home in homes if home]
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *folders])


def _process(command: Sequence[str], timeout_s: float) -> int | None:
    """The exit status of a command, whose whole family is killed when it takes too long: None."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PATH": _search_path()}
    # A session of its own: compilers and tools that it starts end with it.
    process = subprocess.Popen(command, start_new_session=True, env=environment)
    try:
        return process.wait(timeout_s)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return None
        raise


def _without_folders(values: dict[str, Any]) -> dict[str, Any]:
    """Figures without this machine's folders; the library's path stays, and is never written."""
    library = values.pop("library", None)
    cleaned: dict[str, Any] = json.loads(_FOLDERS.sub("", json.dumps(values)))
    return cleaned | ({"library": library} if library else {})


def _write(options: argparse.Namespace, report: dict[str, Any]) -> None:
    from bench.common.report import write_report

    name = report["parts"]["gpu"].get("name") or "unknown"
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower().removeprefix("nvidia ")).strip("-")
    path = options.output or RESULTS / f"gpu-{slug}.json"
    if report["parts"]["gpu"]["status"] == "ok" or options.output:
        write_report(path.resolve(), report)


if __name__ == "__main__":
    sys.exit(main())
