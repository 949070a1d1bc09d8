"""Laws of `bench/latency.py`; what it measures is never asserted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import latency
import numpy as np
import pytest
from latency_report import lines
from latency_rounds import Measured, _compare, take_turns
from latency_worker import PARTS, Job

from bsmamba2.doctor import version
from bsmamba2.runtime.engines import default_engine_path

SCRIPT = Path(latency.__file__)
SHORT = ("--config", "small", "--rounds", "1", "--seconds", "1")
ONNX = ("--onnx", str(default_engine_path()))
ONLY_ONNX = (*SHORT, *ONNX, "--engines", "onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("latency")


@pytest.fixture(scope="module")
def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """All engines, as a user starts it, from another folder."""
    output = folder / "results" / "small.json"
    command = [sys.executable, str(SCRIPT), *SHORT, "--json", "-o", str(output)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


@pytest.fixture(scope="module")
def report(run: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert run.returncode == 0, run.stderr
    values: dict[str, Any] = json.loads(run.stdout)
    return values


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "version", lambda name: None if name == "torch" else version(name))


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
    assert report["gemm"]["shape"] == [51 * 33, 64, 644]
    assert set(report["engines"]) == set(latency.ENGINES)
    assert report["skipped"] == report["failed"] == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", latency.ENGINES)
def test_figures_of_an_engine_are_consistent(report: dict[str, Any], name: str) -> None:
    figures = report["engines"][name]
    assert sum(figures["share"].values()) == pytest.approx(1)
    assert len(figures["rounds"]) == 1
    for each in (figures["warm_up"], *figures["rounds"]):
        assert sum(each[part] for part in PARTS) == pytest.approx(each["whole_s"])
    whole = figures["whole_s"]
    assert whole["min"] <= whole["median"] <= whole["max"]
    assert figures["real_time_factor"] == pytest.approx(whole["median"] / 1)
    base = report["engines"]["onnxruntime"]["whole_s"]["median"]
    assert figures["ratio_to_onnxruntime"]["median"] == pytest.approx(whole["median"] / base)
    floor = figures["rounds"][0]["engine_s"] / report["gemm"]["floor_s"]
    assert figures["ratio_to_gemm_floor"]["median"] == pytest.approx(floor)
    assert figures["peak_memory_mib"] > 0
    assert figures["backend"] == name.partition("-")[0]


@pytest.mark.slow
def test_parts_of_the_flops_add_up(report: dict[str, Any]) -> None:
    total = report["flops"].pop("total")
    assert sum(report["flops"].values()) == pytest.approx(total)
    report["flops"]["total"] = total


@pytest.mark.slow
def test_engines_agree_with_the_network_as_trained(report: dict[str, Any]) -> None:
    agreement = report["agreement"]
    assert agreement["reference"] == "pytorch"
    assert set(agreement["relative_rms"]) == {"pytorch-folded", "onnxruntime"}
    assert all(0 < rms <= agreement["limit"] for rms in agreement["relative_rms"].values())
    assert agreement["wrong"] == []


@pytest.mark.slow
def test_results_on_stdout_and_in_the_file_are_the_same(
    run: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert (folder / "results" / "small.json").read_text() == run.stdout
    assert "round 1 of 1: onnxruntime" in run.stderr


@pytest.mark.slow
def test_no_absolute_path_in_the_results(
    run: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert str(folder) not in run.stdout
    assert str(SCRIPT.parents[1]) not in run.stdout
    assert "-o small.json" in run.stdout


@pytest.mark.slow
def test_table_has_a_row_an_engine(report: dict[str, Any]) -> None:
    text = "\n".join(lines(report))
    rows = [line for line in text.splitlines() if line.startswith(("pytorch ", "pytorch-", "onnx"))]
    assert [row.split()[0] for row in rows] == list(latency.ENGINES)
    for figure in ("/ ONNX Runtime", "STFT", "ISTFT", "RTF", "peak MiB", "GFLOP/s", "load average"):
        assert figure in text


@pytest.mark.slow
def test_wrong_weights_win_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bsmamba2.checkpoints.weights import save_weights
    from bsmamba2.models.load import load_network

    network, artefact = load_network("small", seed=1)
    save_weights(folder / "other.safetensors", network.state_dict(), artefact)
    files = (*ONNX, "--weights", str(folder / "other.safetensors"))
    assert latency.main([*SHORT, *files, "--engines", "pytorch-folded", "onnxruntime"]) == 1
    out = capsys.readouterr().out
    assert "onnxruntime computes another mask than pytorch-folded" in out


@pytest.mark.usefixtures("without_torch")
def test_absent_torch_leaves_the_row_of_an_onnx_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert latency.main([*SHORT, *ONNX, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["engines"]) == ["onnxruntime"]
    assert report["agreement"]["reference"] is None
    assert set(report["skipped"]) == {"pytorch", "pytorch-folded"}
    assert all("bsmamba2[train]" in reason for reason in report["skipped"].values())
    assert "pytorch-folded: no row." in "\n".join(lines(report))


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
        ((*SHORT, "--config", "bsmamba2", *ONNX), "is another network than bsmamba2"),
        ((*ONLY_ONNX, "--seconds", "0.01"), "are no chunk"),
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
    absent = Job(kind="onnxruntime", file=str(tmp_path / "absent.onnx"))
    jobs = {"onnxruntime": absent, "gemm": Job(kind="gemm", shape=(2, 3, 4))}
    measured = take_turns(jobs, 1, lambda _: None)
    assert measured.failed == {"onnxruntime": "No such file: absent.onnx."}
    assert len(measured.rounds["gemm"]) == 2


def saved(folder: Path, **masks: float) -> Mapping[str, str]:
    for name, value in masks.items():
        np.save(folder / f"{name}.npy", np.array([1, value], np.float32))
    return {name: str(folder / f"{name}.npy") for name in masks}


def test_the_worst_round_counts_and_nan_is_the_worst(tmp_path: Path) -> None:
    result = Measured()
    for b, c in ((2, math.nan), (1, 1), (1.5, 1)):
        _compare(saved(tmp_path, a=1, b=b, c=c), result)
    assert result.reference == "a"
    assert result.relative_rms["b"] == pytest.approx(math.sqrt(0.5))
    assert math.isnan(result.relative_rms["c"])
