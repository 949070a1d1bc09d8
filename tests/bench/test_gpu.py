"""Laws of `bench/gpu`: every branch that needs no GPU runs, and no failure loses figures."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from stranger import compute_sanitizer, mamba_checkout, ncu, strange_environment

from bench.common.report import report_head
from bench.common.scans import FULL, scan_bytes
from bench.gpu import measure as gpu
from bench.gpu import watched
from bench.gpu.clock import ratios, take_turns
from bench.gpu.part import Job, Part, relative_rms
from bench.gpu.report import lines
from bench.gpu.scan import KINDS

SCRIPT = Path(gpu.__file__)
CPU = torch.device("cpu")
HAS_RTX = importlib.util.find_spec("tensorrt_rtx") is not None
Rehearsal = tuple[subprocess.CompletedProcess[str], dict[str, Any]]


# --- the rehearsal ---


@pytest.fixture(scope="module")
def rehearsal(
    emulated_scan: Path, plugin_library: Path, tmp_path_factory: pytest.TempPathFactory
) -> Rehearsal:
    """A rehearsal of all parts on a machine without the project, and its JSON."""
    folder = tmp_path_factory.mktemp("gpu")
    compute_sanitizer(folder)
    ncu(folder)
    output = folder / "results" / "rehearsal.json"
    command = [
        *(sys.executable, SCRIPT, "--rehearse", emulated_scan, "--plugin", plugin_library),
        *("--mamba-ssm", mamba_checkout(folder / "mamba"), "--timeout", "900"),
        *("--quick", "-o", output),
    ]
    environment = strange_environment(folder)
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert output.exists(), done.stdout + done.stderr
    return done, json.loads(output.read_text())


@pytest.mark.slow
def test_all_parts_run_on_a_strangers_machine(rehearsal: Rehearsal):
    done, report = rehearsal
    statuses = {name: part["status"] for name, part in report["parts"].items()}
    expected = dict.fromkeys(gpu.PARTS, "ok") | {"plan": "ok" if HAS_RTX else "skipped"}
    assert statuses == expected, done.stdout + done.stderr
    assert not any(part["logged"] for part in report["parts"].values())
    assert done.returncode == 0
    text = json.dumps(report)
    for path in (str(SCRIPT.parents[2]), "/tmp/", str(Path.home()) + "/"):
        assert path not in text  # the JSON names no folder of the machine
    table = done.stdout[done.stdout.index("REHEARSAL on a CPU") :]
    assert all(f"== {name}: {status}" in table for name, status in expected.items())


@pytest.mark.slow
def test_json_has_the_documented_figures(rehearsal: Rehearsal):
    parts = rehearsal[1]["parts"]
    assert all(row["ok"] for row in parts["parity"]["rows"])
    assert {row["dtype"] for row in parts["parity"]["rows"]} == {"float32", "float16", "bfloat16"}
    assert {row["kind"] for row in parts["parity"]["rows"]} == {*KINDS, "batch"}
    candidates = {"bsm", "copy", "mamba_ssm", "mamba_ssm kernels", "chunked", "floor"}
    assert {row["candidate"] for row in parts["scan"]["rows"]} == candidates
    assert {row["path"] for row in parts["scan"]["rows"]} == {"time", "bands"}
    for row in parts["scan"]["rows"]:
        assert row.get("relative_rms_to_ours", 0) < 1e-2
    assert set(parts["scan"]["ms_of_12_blocks"]["float16"]) == candidates
    tools = [(row["tool"], row["planted"]) for row in parts["sanitizer"]["rows"]]
    assert tools[:2] == [("memcheck", True), ("memcheck", False)]
    assert tools[2:] == [("racecheck", False)]
    first, second = parts["profile"]["rows"]
    assert first["metrics"] == {"DRAM Throughput": "71.5 %", "Duration": "150.2 us"}
    assert (first["Duration"], second["kernel"]) == ("150.2 us", "normalise")
    assert all(row["relative_rms"] < 2e-2 for row in parts["mask"]["rows"])
    assert {row["batch"] for row in parts["network"]["rows"]} == {1, 4}
    assert len(parts["network"]["rows"]) == 10
    assert all(parts["kernels"][name][0]["ms"] > 0 for name in ("time", "bands", "network"))
    assert parts["song"]["song_s"] == 3


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RTX, reason="needs tensorrt-rtx")
def test_rehearsal_builds_plans_for_real(rehearsal: Rehearsal):
    part = rehearsal[1]["parts"]["plan"]
    assert part["smoke"]["build_s"] > 0
    for built in part["plans"]:
        assert built["builder"].startswith("tensorrt-rtx ")
        assert built["plugin_layers"] > 0
        assert built["mib"] > 1
        assert "PluginError" in built["error"]  # the plugin that was named is not in the cache
    assert {row["batch"] for row in part["rows"]} == {1, 2, 4}
    assert {row["network"] for row in part["rows"]} == {
        "published, float16 autocast",
        "folded float16, graph",
        "plan, float16",
        "plan, float32",
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_without_a_gpu_it_says_so_and_stops(tmp_path: Path):
    output = tmp_path / "a.json"
    command = [sys.executable, SCRIPT, "--quick", "-o", output]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    parts = json.loads(output.read_text())["parts"]
    assert list(parts) == ["gpu"]
    assert "PyTorch finds no CUDA GPU here" in parts["gpu"]["reason"]


@pytest.mark.parametrize("script", sorted(SCRIPT.parent.glob("*.sh")), ids=lambda path: path.name)
def test_shell_scripts_name_what_is_there(script: Path):
    subprocess.run(["bash", "-n", script], check=True)
    for name in re.findall(r"bench/gpu/\w+\.\w+", script.read_text()):
        assert (SCRIPT.parents[2] / name).is_file(), name


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
        (
            ["--rehearse", __file__, "-o", "a.json", "--plugin", "absent.so"],
            "no such library: absent.so",
        ),
        (["--plugin", __file__], "--plugin is for a rehearsal"),
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
        report_head(str(SCRIPT), arguments)["command"]
        == "python bench/gpu/measure.py --mamba-ssm mamba --quick -o a/b.json"
    )


# --- parts that fail ---


def run_with(
    worker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *options: str
) -> tuple[int, dict[str, Any]]:
    """Runs measure.py with a fake of its worker, in which `job` and `save` are defined."""
    script = tmp_path / "worker.py"
    head = "import json, os, sys, time; job = json.loads(sys.argv[1])\n"
    save = "def save(**values): open(job['result'], 'w').write(json.dumps(values))\n"
    script.write_text(head + save + worker)
    monkeypatch.setattr(gpu, "WORKER", script)
    output = tmp_path / "a.json"
    status = gpu.main([*options, "-o", str(output)])
    return status, json.loads(output.read_text())["parts"]


def test_a_part_that_crashes_keeps_its_figures_and_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    worker = (
        "save(rows=[{'a': job['part'] + job['library']}], library='l.so')\n"
        "if job['part'] == 'scan': os.abort()\n"
        "if job['part'] == 'mask': save(error='no /opt/a-b/c.d/x, ../x at 3 GB/s'); sys.exit(1)\n"
        "if job['part'] == 'plan': save(skipped='no cupy')\n"
    )
    parts = ("scan", "mask", "song", "plan")
    status, found = run_with(worker, tmp_path, monkeypatch, "--parts", *parts)
    assert status == 1
    assert {name: part["status"] for name, part in found.items()} == {
        "gpu": "ok",
        "mask": "failed",
        "scan": "failed",
        "song": "ok",
        "plan": "skipped",
    }
    assert found["scan"]["rows"] == [{"a": "scanl.so"}]
    assert "-6" in found["scan"]["reason"]
    assert found["mask"]["reason"] == "no x, ../x at 3 GB/s"
    printed = capsys.readouterr().out
    assert printed[printed.index("== plan: ") :].split("\n")[1:] == ["   no cupy", ""]


def test_a_part_that_hangs_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    alive = tmp_path / "alive"
    worker = (
        "save(name='a')\n"
        "if job['part'] == 'mask':\n"
        "    save(rows=[])\n"
        f"    os.system('sleep 4; touch {alive}')\n"
    )
    options = ("--parts", "mask", "song", "--timeout", "2")
    status, parts = run_with(worker, tmp_path, monkeypatch, *options)
    assert status == 1
    assert (parts["mask"]["status"], parts["mask"]["rows"]) == ("timed out", [])
    assert parts["song"]["status"] == "ok"
    assert parts["mask"]["seconds"] < 4
    time.sleep(2.5)
    assert not alive.exists()


def test_without_a_library_nothing_else_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    worker = "save(error='PluginError: no nvcc', name='a'); sys.exit(1)\n"
    status, parts = run_with(worker, tmp_path, monkeypatch)
    assert status == 1
    assert list(parts) == ["gpu"]
    assert (parts["gpu"]["reason"], parts["gpu"]["name"]) == ("PluginError: no nvcc", "a")


def test_table_shows_whatever_a_part_has():
    part = {
        "status": "ok",
        "seconds": 1.0,
        "logged": ["slow"],
        "floor_ms": {"scans": 2.5},
        "rows": [{"a": 1, "ms": {"median": 2.0, "min": 1.0, "max": 3.0}}, {"b": 1e-4, "c": None}],
    }
    report = {"rehearsal": False, "command": "c", "date": "d", "parts": {"scan": part}}
    assert list(lines(report))[3:] == [
        "   warning: slow",
        "   floor_ms: scans 2.50",
        "   rows:",
        "   a  ms                b        c",
        "   1  2.00 (1.00-3.00)",
        "                        1.0e-04  -",
    ]


# --- the sanitizer ---


@pytest.mark.parametrize(
    ("library", "found", "reason", "ok"),
    [
        (True, "", "", [True, True, True]),
        (True, "2", "a tool reports errors", [True, False, False]),
        (False, "", "does not work here", [False, False, False]),  # nothing runs, nothing is found
    ],
)
def test_sanitizer_is_content_with_the_planted_error_alone(
    library: bool,
    found: str,
    reason: str,
    ok: list[bool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Over a program that needs its library and computes nothing, in place of the worker."""
    worker = tmp_path / "worker.py"
    worker.write_text("import json, sys; open(json.loads(sys.argv[1])['library'])\n")
    monkeypatch.setattr(watched, "WORKER", worker)
    for name, value in strange_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FOUND", found)
    compute_sanitizer(tmp_path)
    job = Job(
        part="sanitizer",
        result=str(tmp_path / "result.json"),
        library=str(worker if library else tmp_path / "absent.so"),
        rehearsal=True,
        quick=True,
    )
    part = Part(job)
    if reason:
        with pytest.raises(RuntimeError, match=reason):
            watched.sanitizer(part)
    else:
        watched.sanitizer(part)
    assert [row["ok"] for row in part.values["rows"]] == ok


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
    assert ratios(times, "ours", "theirs") == {"median": 4, "min": 3, "max": 4}
    assert ratios(times, "ours", "absent") is None


def test_relative_rms_of_nan_is_none():
    assert relative_rms(torch.tensor([torch.nan]), torch.ones(1)) is None
    assert relative_rms(torch.tensor([3.0]), torch.tensor([2.0])) == 0.5


def test_bytes_are_each_input_and_output_once():
    tokens = 62 * 801
    assert scan_bytes(FULL, tokens, 2) == tokens * (4640 + 2048) * 2
