"""Training runs of a very small network, and what they write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from faults_train import CONFIG, final_state

from bsmamba2.config.file import Config, load_config, override_config


def small_config(tmp_path: Path, *assignments: str) -> Config:
    """CONFIG with some values replaced."""
    path = tmp_path / "in-process.yaml"
    path.write_text(CONFIG)
    return override_config(load_config(path), assignments)


def records(run: Path, kind: str) -> list[dict[str, Any]]:
    """All records of one kind in a run's log."""
    lines = (run / "log.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def assert_same_state(a: Path, b: Path) -> None:
    """Asserts that the weights of two runs are equal to the last bit."""
    left, right = final_state(a), final_state(b)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []
