"""Laws of `bench/latency.py`; no test depends on a measured time."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import latency
from bench.timing import measure as latency_measure
from bench.timing.engines import PARTS
from bench.timing.measure import ENGINES
from bench.timing.tables import lines
from bench.timing.turns import Job, Measured, take_turns
from bsmamba2.cli.doctor_checks import version
from bsmamba2.runtime.engines import default_engine_path

SCRIPT = Path(latency.__file__)
BRIEF = ("--config", "small", "--rounds", "1", "--seconds", "1")
SHORT = (*BRIEF, "--no-growth")
ALL = ("--threads=1", "--profile", "--batches=1", "--lengths", "1", "2", "--peers=sequential-scan")
MEASURED = ("pytorch", "pytorch-folded", "onnx-body", "onnx-int8")
"""What runs anywhere; onnx-native and plan may be skipped, with a reason."""
ONNX = ("--onnx", str(default_engine_path()))
ONLY_ONNX = (*SHORT, *ONNX, "--engines", "onnx-body")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("latency")


@pytest.fixture(scope="module")
def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """A run of all engines, as a user starts it, from another folder."""
    output = folder / "results" / "small.json"
    command = [sys.executable, str(SCRIPT), *BRIEF, *ALL, "--json", "-o", str(output)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


@pytest.fixture(scope="module")
def report(run: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert run.returncode == 0, run.stderr
    values: dict[str, Any] = json.loads(run.stdout)
    return values


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"torch"}
    monkeypatch.setattr(
        latency_measure, "version", lambda name: None if name in absent else version(name)
    )


@pytest.mark.slow
def test_json_has_the_documented_fields(report: dict[str, Any]) -> None:
    assert (report["benchmark"], report["format"]) == ("latency", latency.FORMAT)
    assert set(report["machine"]) >= {"cpu", "cores", "isa", "load_average", "memory_gib"}
    assert set(report["machine"]["load_average"]) == {"start", "end"}
    assert report["versions"]["torch"] == version("torch")
    assert report["model"]["parameters"] == 1_347_988
    assert "without the gate" in report["model"]["onnx"]
    assert report["chunk"] == {"seconds": 1, "frames": 51, "tokens": 51 * 33}
    assert report["rounds"] == 1
    assert report["complete"]
    assert report["rates"]["gemm"]["shape"] == [51 * 33, 64, 644]
    assert set(report["rates"]) == {"gemm", "gemm-int8", "memory"}
    assert set(report["engines"]) | set(report["skipped"]) == set(ENGINES)
    assert set(report["engines"]) >= set(MEASURED)
    assert set(report["skipped"]) <= {"onnx-native", "plan"}
    assert set(report["peers"]) == {"sequential-scan"}
    assert report["failed"] == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_figures_of_an_engine_are_consistent(report: dict[str, Any], name: str) -> None:
    figures = report["engines"][name]
    assert sum(figures["share"].values()) == pytest.approx(1)
    assert len(figures["rounds"]) == 1
    for each in (figures["warm_up"], *figures["rounds"]):
        assert sum(each[part] for part in PARTS) == pytest.approx(each["whole_s"])
    ms = figures["ms_per_chunk"]
    assert ms["min"] <= ms["median"] <= ms["max"]
    assert figures["real_time_factor"] == pytest.approx(ms["median"] / 1000)
    base = report["engines"][report["base"]]["ms_per_chunk"]["median"]
    assert figures["ratio_to_base"]["median"] == pytest.approx(ms["median"] / base)
    precision = "int8" if name == "onnx-int8" else "float32"
    floor = figures["rounds"][0]["engine_s"] / report["floor"][precision]["floor_s"]
    assert figures["ratio_to_floor"]["median"] == pytest.approx(floor)
    assert figures["peak_memory_mib"] > 0
    assert figures["backend"] == ("onnxruntime" if name.startswith("onnx") else "pytorch")


@pytest.mark.slow
def test_engines_agree_with_the_network_as_trained(report: dict[str, Any]) -> None:
    agreement = report["agreement"]
    assert agreement["reference"] == "pytorch"
    assert set(agreement["relative_rms"]) == set(report["engines"]) - {"pytorch"}
    assert all(0 < rms <= agreement["limits"][n] for n, rms in agreement["relative_rms"].items())
    assert agreement["limits"]["onnx-body"] < agreement["limits"]["onnx-int8"]
    assert agreement["wrong"] == []


@pytest.mark.slow
def test_sequential_scan_is_extrapolated_as_it_says(report: dict[str, Any]) -> None:
    row = report["peers"]["sequential-scan"]
    (each,) = row["rounds"]
    assert 0 < each["layer_s"] < each["measured_s"]
    assert each["whole_s"] == pytest.approx(each["measured_s"] + 2 * each["layer_s"])  # of three
    assert "1 of 3 layers" in row["configuration"]


@pytest.mark.slow
def test_growth_has_a_point_a_count(report: dict[str, Any]) -> None:
    length, batch = (report["growth"][name]["points"] for name in ("length", "batch"))
    assert [(point["chunks"], point["audio_s"]) for point in length] == [(1, 4), (2, 8)]
    assert [point["chunks"] for point in batch] == [1]
    assert all(point["min"] <= point["seconds"] <= point["max"] for point in (*length, *batch))


@pytest.mark.slow
def test_profile_has_every_operator_once_and_the_scan_apart(report: dict[str, Any]) -> None:
    for name in {"onnx-body", "onnx-int8"}:
        profile = report["profile"][name]
        operators = [row["operator"] for row in profile["operators"]]
        assert len(set(operators)) == len(operators)
        assert sum(row["share"] for row in profile["operators"]) == pytest.approx(1)
        assert sum(part["share"] for part in profile["parts"].values()) == pytest.approx(1)
        assert all(part["ms"] > 0 for part in profile["parts"].values())


@pytest.mark.slow
def test_stdout_and_the_file_are_the_same_and_name_no_absolute_path(
    run: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert (folder / "results" / "small.json").read_text() == run.stdout
    assert "round 1 of 1: onnx-body" in run.stderr
    assert str(folder) not in run.stdout
    assert str(SCRIPT.parents[1]) not in run.stdout
    assert "-o small.json" in run.stdout


@pytest.mark.slow
def test_table_has_a_row_an_engine(report: dict[str, Any]) -> None:
    text = "\n".join(lines(report))
    rows = [line.split()[0] for line in text.splitlines() if line.count(" GiB") == 1]
    assert rows == [*report["engines"], "sequential-scan"]
    for figure in (
        "to the floor",
        "STFT",
        "mask differs",
        "peak memory",
        "GFLOP/s",
        "load average",
    ):
        assert figure in text


@pytest.mark.slow
def test_wrong_weights_win_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bsmamba2.checkpoints.weights import save_weights
    from bsmamba2.models.load import load_network

    network, metadata = load_network("small", seed=1)
    save_weights(folder / "other.safetensors", network.state_dict(), metadata)
    files = (*ONNX, "--weights", str(folder / "other.safetensors"))
    assert latency.main([*SHORT, *files, "--engines", "pytorch-folded", "onnx-body"]) == 1
    out = capsys.readouterr().out
    assert "onnx-body computes a different mask from pytorch-folded" in out


@pytest.mark.usefixtures("without_torch")
def test_absent_torch_leaves_the_row_of_an_onnx_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert latency.main([*SHORT, *ONNX, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "onnx-body" in report["engines"]
    assert set(report["skipped"]) >= {"pytorch", "pytorch-folded", "onnx-int8", "plan"}
    for name in ("pytorch", "pytorch-folded"):
        assert "bsmamba2[train]" in report["skipped"][name]
    assert "--int8" in report["skipped"]["onnx-int8"]
    assert "pytorch-folded: not measured." in "\n".join(lines(report))


@pytest.mark.usefixtures("without_torch")
def test_without_any_engine_the_extras_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert latency.main(SHORT) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Error: " in captured.err
    assert "bsmamba2[train]" in captured.err
    assert "bsmamba2[export]" in captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*SHORT, "--config", "bsmamba2", *ONNX), "is a different network from bsmamba2"),
        ((*ONLY_ONNX, "--seconds", "0.01"), "is too short: a chunk needs"),
        ((*SHORT, "--onnx", "absent.onnx"), "No such file: absent.onnx"),
        ((*SHORT, "--config", "absent"), "No configuration absent"),
    ],
)
def test_unusable_arguments_are_one_sentence(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert latency.main(arguments) == 1
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_an_engine_that_fails_costs_its_own_row_only(tmp_path: Path) -> None:
    options = {"threads": 1, "seconds": 0}
    absent = {"kind": "onnx-body", "file": tmp_path / "absent.onnx", "mask": tmp_path / "mask.npy"}
    jobs = {
        "onnx-body": Job("engines:chunk", options | absent),
        "bs-roformer": Job("peers.network:network", options | {"name": "bs-roformer"}),
        "gemm": Job("rates:gemm", options | {"shape": (2, 3, 4)}),
    }
    seen: list[int] = []
    measured = take_turns(jobs, 2, lambda so_far: seen.append(len(so_far.rounds["gemm"])))
    assert measured.failed["onnx-body"] == "No such file: absent.onnx."
    assert "bs_roformer" in measured.failed["bs-roformer"]  # the package is not installed here
    assert seen == [2, 3]  # called after each round but the warm-up


def test_a_cut_run_leaves_its_rounds(tmp_path: Path) -> None:
    output = tmp_path / "cut.json"
    many = (*ONLY_ONNX, "--rounds", "1000", "-o", str(output))
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), *many], stderr=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 120
        while not output.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    report = latency.read_report(output)
    assert not report["complete"]
    assert len(report["engines"]["onnx-body"]["rounds"]) == report["rounds"] >= 1
    assert "The run was interrupted" in "\n".join(lines(report))


def test_the_worst_round_counts_and_nan_is_the_worst(tmp_path: Path) -> None:
    result, paths = Measured(), {name: tmp_path / f"{name}.npy" for name in "abc"}
    for b, c in ((2, math.nan), (1, 1), (1.5, 1)):
        for path, value in zip(paths.values(), (1, b, c), strict=True):
            np.save(path, np.array([1, value], np.float32))
        result.compare(paths)
    assert result.reference == "a"
    assert result.relative_rms["b"] == pytest.approx(math.sqrt(0.5))
    assert math.isnan(result.relative_rms["c"])
