"""Laws of `bench/gpu`: every branch that needs no GPU runs, and no failure loses figures."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from stranger import compute_sanitizer, cuda_driver, mamba_checkout, ncu, strange_python

from bench.common.report import report_head
from bench.common.scans import FULL, SMALL, scan_bytes
from bench.gpu import clock as gpu_clock
from bench.gpu import measure as gpu
from bench.gpu.clock import Clock, take_turns
from bench.gpu.part import Job, Part, relative_rms
from bench.gpu.report import lines
from bench.gpu.sanitizer import sanitizer
from bench.gpu.scan import KINDS, make_case
from bench.gpu.worker import FUNCTIONS

SCRIPT = Path(gpu.__file__)
CPU = Clock(torch.device("cpu"), rehearsal=True)
PARTS = tuple(FUNCTIONS)
HAS_RTX = importlib.util.find_spec("tensorrt_rtx") is not None


# --- the rehearsal ---


@pytest.fixture(scope="module")
def rehearsal(
    emulated_scan: Path, plugin_library: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """All parts on a stranger's machine, and the JSON."""
    folder = tmp_path_factory.mktemp("gpu")
    output = folder / "results" / "rehearsal.json"
    command = [
        *(strange_python(folder / "python"), SCRIPT, "--rehearse", emulated_scan, "-o", output),
        *("--mamba-ssm", mamba_checkout(folder / "mamba"), "--timeout", "600"),
        *("--sanitizer", compute_sanitizer(folder), "--driver", cuda_driver(folder)),
        *("--ncu", ncu(folder), "--plugin", plugin_library),
    ]
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "BSM_SCAN_LIBRARY")
    } | {"XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert output.exists(), done.stdout + done.stderr
    return done, json.loads(output.read_text())


@pytest.mark.slow
def test_all_parts_run_on_a_strangers_machine(
    rehearsal: tuple[subprocess.CompletedProcess[str], dict[str, Any]],
):
    done, report = rehearsal
    statuses = {name: part["status"] for name, part in report["parts"].items()}
    expected = dict.fromkeys(PARTS, "ok") | {"plan": "ok" if HAS_RTX else "skipped"}
    assert statuses == expected, done.stdout + done.stderr
    assert not any(part["logged"] for part in report["parts"].values())
    assert done.returncode == 0
    assert report["rehearsal"]
    assert (report["benchmark"], report["format"]) == ("gpu", gpu.FORMAT)


@pytest.mark.slow
def test_a_rehearsal_says_so_and_prints_a_block_a_part(
    rehearsal: tuple[subprocess.CompletedProcess[str], dict[str, Any]],
):
    done, _ = rehearsal
    table = done.stdout[done.stdout.index("REHEARSAL on a CPU") :]
    assert all(f"== {name}: ok" in table for name in PARTS if HAS_RTX or name != "plan")
    assert "incomplete" not in table


@pytest.mark.slow
def test_json_has_the_documented_figures(
    rehearsal: tuple[subprocess.CompletedProcess[str], dict[str, Any]],
):
    parts = rehearsal[1]["parts"]
    assert all(row["ok"] for row in parts["parity"]["rows"])
    assert {row["dtype"] for row in parts["parity"]["rows"]} == {"float32", "float16", "bfloat16"}
    assert {row["kind"] for row in parts["parity"]["rows"]} == {*KINDS, "batch"}
    candidates = {"bsm", "copy", "mamba_ssm", "mamba_ssm kernels", "chunked"}
    for row in parts["scan"]["rows"]:
        assert set(row["ms"]) == candidates
        assert row["relative_rms_to_bsm"]["mamba_ssm"] < 1e-2
    assert {row["path"] for row in parts["scan"]["rows"]} == {"time", "bands"}
    tools = [(row["what"], row["tool"]) for row in parts["sanitizer"]["rows"]]
    assert tools == [
        ("planted", "memcheck"),
        *(("scan", tool) for tool in ("memcheck", "racecheck", "synccheck", "initcheck")),
    ]
    first, second = parts["profile"]["kernels"]
    assert first["metrics"] == {"DRAM Throughput": "71.5 %", "Duration": "150.2 us"}
    assert second["kernel"] == "normalise"
    assert all(row["relative_rms"] < 2e-2 for row in parts["mask"]["rows"])
    assert [row["batch"] for row in parts["network"]["rows"]] == [1, 4]
    assert all(len(row["networks"]) == 4 for row in parts["network"]["rows"])
    assert parts["network"]["kernels"][0]["ms"] > 0
    assert parts["song"]["song_s"] == 3


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RTX, reason="needs tensorrt-rtx")
def test_rehearsal_builds_a_plan_for_real(
    rehearsal: tuple[subprocess.CompletedProcess[str], dict[str, Any]],
):
    part = rehearsal[1]["parts"]["plan"]
    (built,) = part["plans"]
    assert built["source"] == "default.onnx"  # a stranger has no onnx to export another
    assert built["builder"].startswith("tensorrt-rtx ")
    assert built["plugin_layers"] > 0
    assert built["mib"] > 1
    assert built["seconds"] > 0
    assert "PluginError" in built["error"]  # the one that was named is not the cache's
    assert [row["batch"] for row in part["rows"]] == [1, 2, 4]
    for row in part["rows"]:
        assert set(row["networks"]) == {
            "published, float16 autocast",
            "folded float16, graph",
            "plan, float32",
        }


@pytest.mark.slow
def test_json_names_no_folder_of_the_machine(
    rehearsal: tuple[subprocess.CompletedProcess[str], dict[str, Any]],
):
    text = json.dumps(rehearsal[1])
    for path in (str(SCRIPT.parents[1]), "/tmp/", str(Path.home()) + "/"):
        assert path not in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_without_a_gpu_it_says_so_and_stops(tmp_path: Path):
    output = tmp_path / "a.json"
    command = [sys.executable, SCRIPT, "--quick", "-o", output]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    parts = json.loads(output.read_text())["parts"]
    assert list(parts) == ["gpu"]
    assert "PyTorch finds no CUDA GPU here" in parts["gpu"]["reason"]


# --- options ---


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rehearse", __file__], "a rehearsal needs -o FILE"),
        (
            ["--rehearse", __file__, "-o", str(gpu.RESULTS / "a.json")],
            "must not be in bench/results",
        ),
        (["--rehearse", "absent.so", "-o", "a.json"], "no such library: absent.so"),
        (["--library", "absent.so"], "no such library: absent.so"),
        (
            ["--rehearse", __file__, "-o", "a.json", "--plugin", "absent.so"],
            "no such library: absent.so",
        ),
        (["--plugin", __file__], "--plugin is a rehearsal's"),
        (["--onnx", "absent.onnx"], "no such file: absent.onnx"),
    ],
)
def test_unfit_options_are_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
):
    assert gpu.main(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_command_names_no_folder():
    arguments = ["--mamba-ssm", "/home/someone/mamba", "--quick", "-o", "a/b.json"]
    assert (
        report_head("gpu", arguments)["command"]
        == "python bench/gpu/measure.py --mamba-ssm mamba --quick -o a/b.json"
    )


def test_figures_keep_units_and_lose_folders():
    values = {"error": "no /opt/a-b/c.d/nvcc, ../x/y at 3 GB/s", "library": "/a/b/l.so"}
    cleaned = {"error": "no nvcc, ../x/y at 3 GB/s", "library": "/a/b/l.so"}
    assert gpu._without_folders(values) == cleaned


# --- parts that fail ---


def run_with(
    worker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *options: str
) -> tuple[int, dict[str, Any]]:
    """gpu.py over a stand-in for its worker, with `job` at hand."""
    script = tmp_path / "worker.py"
    head = "import json, os, sys, time; job = json.loads(sys.argv[1])\n"
    save = "def save(**values): open(job['result'], 'w').write(json.dumps(values))\n"
    script.write_text(head + save + worker)
    monkeypatch.setattr(gpu, "WORKER", script)
    output = tmp_path / "a.json"
    status = gpu.main([*options, "-o", str(output)])
    return status, json.loads(output.read_text())["parts"]


def test_a_part_that_crashes_keeps_its_figures_and_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    worker = (
        "save(rows=[job['part']], library='l.so')\n"
        "if job['part'] == 'scan': os.abort()\n"
        "if job['part'] == 'mask': save(error='RuntimeError: broken', rows=[1]); sys.exit(1)\n"
    )
    status, parts = run_with(worker, tmp_path, monkeypatch, "--parts", "scan", "mask", "song")
    assert status == 1
    assert {name: part["status"] for name, part in parts.items()} == {
        "gpu": "ok",
        "build": "ok",
        "scan": "failed",
        "mask": "failed",
        "song": "ok",
    }
    assert parts["scan"]["rows"] == ["scan"]
    assert "-6" in parts["scan"]["reason"]
    assert (parts["mask"]["reason"], parts["mask"]["rows"]) == ("RuntimeError: broken", [1])
    assert "l.so" not in json.dumps(parts)


def test_a_part_that_hangs_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    alive = tmp_path / "alive"
    worker = (
        "save(name='a', library='l.so')\n"
        "if job['part'] == 'mask':\n"
        "    save(rows=[1])\n"
        f"    os.system('sleep 6; touch {alive}')\n"
    )
    options = ("--parts", "mask", "song", "--timeout", "3")
    status, parts = run_with(worker, tmp_path, monkeypatch, *options)
    assert status == 1
    assert (parts["mask"]["status"], parts["mask"]["rows"]) == ("timed out", [1])
    assert parts["song"]["status"] == "ok"
    assert parts["mask"]["seconds"] < 6
    subprocess.run(["sleep", "4"], check=True)
    assert not alive.exists()


def test_without_a_library_what_needs_one_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    worker = "save(error='PluginError: no nvcc') if job['part'] == 'build' else save()\n"
    worker += "sys.exit(job['part'] == 'build')\n"
    status, parts = run_with(worker, tmp_path, monkeypatch, "--parts", "parity", "scan", "song")
    assert status == 1
    assert parts["build"]["reason"] == "PluginError: no nvcc"
    assert [parts[name]["status"] for name in ("parity", "scan", "song")] == [
        "skipped",
        "skipped",
        "ok",
    ]


def test_a_part_that_needs_what_is_not_here_is_skipped_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    worker = "save(library='l.so', **({'skipped': 'no cupy'} if job['part'] == 'plan' else {}))\n"
    status, parts = run_with(worker, tmp_path, monkeypatch, "--parts", "plan")
    assert status == 0
    assert (parts["plan"]["status"], parts["plan"]["reason"]) == ("skipped", "no cupy")
    printed = capsys.readouterr().out
    assert printed[printed.index("== plan: ") :].split("\n")[1:] == ["   no cupy", ""]


def test_a_named_library_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    library = tmp_path / "l.so"
    library.touch()
    worker = "save(given=job['library'].endswith('/l.so'))\n"
    options = ("--parts", "scan", "--library", str(library))
    _, parts = run_with(worker, tmp_path, monkeypatch, *options)
    assert list(parts) == ["gpu", "scan"]
    assert parts["scan"]["given"]


def test_an_incomplete_part_prints_what_it_has():
    part = {"status": "failed", "reason": "RuntimeError: broken", "seconds": 1.0}
    report = {"rehearsal": False, "command": "c", "date": "d", "parts": dict.fromkeys(PARTS, part)}
    printed = "\n".join(lines(report))
    assert printed.count("RuntimeError: broken") == len(PARTS)
    assert printed.count("incomplete") == len(PARTS)


# --- the sanitizer ---


def sanitized(tmp_path: Path, library: Path) -> dict[str, Any]:
    """The part's rows by what and tool, and the error."""
    job = Job(
        part="sanitizer",
        result=str(tmp_path / "result.json"),
        library=str(library),
        sanitizer=str(compute_sanitizer(tmp_path)),
        driver=str(cuda_driver(tmp_path)),
        rehearsal=True,
        quick=True,
    )
    part = Part(job, CPU)
    try:
        sanitizer(part)
    except RuntimeError as error:
        part.values["error"] = str(error)
    rows = {f"{row['what']} {row['tool']}": row["ok"] for row in part.values["rows"]}
    return rows | {"error": part.values.get("error")}


def test_sanitizer_that_finds_only_the_planted_error_is_content(
    tmp_path: Path, emulated_scan: Path
):
    found = sanitized(tmp_path, emulated_scan)
    assert found.pop("error") is None
    assert found == {"planted memcheck": True, "scan memcheck": True, "scan racecheck": True}


def test_errors_of_the_sanitizer_fail_the_part(
    tmp_path: Path, emulated_scan: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FOUND", "2")
    found = sanitized(tmp_path, emulated_scan)
    assert "a tool reports errors" in found["error"]
    assert not found["scan memcheck"]
    assert not found["scan racecheck"]


def test_a_sanitizer_that_does_not_work_here_fails_the_part(tmp_path: Path):
    found = sanitized(tmp_path, tmp_path / "absent.so")  # nothing runs, so nothing is found
    assert "does not work here" in found["error"]
    assert not any(found[name] for name in found if name != "error")


# --- figures ---


def test_candidates_take_turns_and_one_that_fails_stops_no_other():
    calls = []

    def fail() -> None:
        raise RuntimeError("out of memory\nreally")

    works = {"a": lambda: calls.append("a"), "b": fail, "c": lambda: calls.append("c")}
    times, failed = take_turns(CPU, works, 3)
    assert calls == ["a", "c", *"acacac"]
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "c": 3}
    assert failed == {"b": "RuntimeError: out of memory really"}


def test_ratios_are_made_within_a_round():
    times = {"ours": [1.0, 2.0, 4.0], "theirs": [4.0, 8.0, 12.0]}
    assert gpu_clock.ratios(times, "ours", "theirs") == {"median": 4, "min": 3, "max": 4}
    assert gpu_clock.ratios(times, "ours", "absent") is None


def test_relative_rms_of_nan_is_no_number():
    assert math.isnan(relative_rms(torch.tensor([math.nan]), torch.ones(1)))
    assert relative_rms(torch.tensor([3.0]), torch.tensor([2.0])) == 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_cases_are_the_operators_inputs(kind: str):
    from bsmamba2.models.scan import scan_sizes

    case = make_case(Part(Job(part="scan", result=""), CPU), 2, 65, SMALL, torch.float16, kind)
    sizes = scan_sizes(*case.arguments, SMALL.n_heads, SMALL.d_state)
    assert (sizes.d_inner, sizes.width) == (SMALL.d_inner, SMALL.width)
    assert all(tensor.isfinite().all() for tensor in case.tensors)
    assert (case.A < 0).all()


def test_bytes_are_each_input_and_output_once():
    tokens = 62 * 801
    assert scan_bytes(FULL, tokens, 2) == tokens * (4640 + 2048) * 2
