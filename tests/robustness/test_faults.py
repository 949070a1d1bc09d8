"""A short run of `tests/robustness/faults.py`: kills at random moments, and full disks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from disks import can_mount
from faults import run_faults, summary
from faults_infer import Folder, read_only, rivals

from bsmamba2.export import to_onnx


@pytest.fixture(autouse=True)
def exported(short_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine of the runs is one that is exported already."""
    monkeypatch.setattr(to_onnx, "export_onnx", lambda _, path: shutil.copy(short_onnx, path))


def test_killed_and_full_disk_runs_leave_whole_files_and_are_completed(tmp_path: Path):
    results = list(run_faults(tmp_path, seed=1, kills=4, sizes=2))
    assert [result for result in results if result["wrong"]] == []
    kinds = summary(results)
    assert kinds["infer"]["faults"] == kinds["train"]["faults"] == 4
    if not can_mount():
        pytest.skip("full disks: needs root, to mount a file system of few bytes")
    assert kinds["infer disk full"]["stages"].keys() >= {"0 of 8 stems fit", "8 of 8 stems fit"}
    assert "complete" in kinds["train disk full"]["stages"]


def test_two_runs_into_one_folder_and_one_into_a_read_only_folder(tmp_path: Path):
    folder = Folder(tmp_path, seed=2)
    assert rivals(folder, "flac") == []
    if not can_mount():
        pytest.skip("read-only folder: needs root, to mount a file system")
    assert read_only(folder, "flac") == []
