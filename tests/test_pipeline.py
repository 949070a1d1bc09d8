"""End to end: a foreign checkpoint is imported, exported, and separates music."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from exported_files import assert_is_an_engine
from foreign_files import lightning_checkpoint
from networks import random_network
from plan_building import built
from processes import bsm_json
from songs import assert_null

from bsmamba2.checkpoints.weights import load_weights
from bsmamba2.export.precision import gates
from bsmamba2.formats.trt_plan import read_sidecar
from bsmamba2.models.load import load_network
from bsmamba2.system.files import sha256_file

RATE = 44100


def separate(song: Path, engine: Path, out: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Runs `bsm infer` on one song; returns its JSON report and the stems, vocals first."""
    report = bsm_json(
        "infer", song, "--engine", engine, "-o", out / "{stem}.wav", "--device", "cpu"
    )
    assert not report["failed"]
    (file,) = report["files"]
    assert list(file["outputs"]) == ["vocals", "instrumental"]
    stems = [soundfile.read(path, dtype="float32")[0] for path in file["outputs"].values()]
    assert {soundfile.info(path).samplerate for path in file["outputs"].values()} == {
        file["sample_rate"]
    }
    return file, stems


@pytest.fixture(autouse=True)
def quick_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips the gate's chunk of audio, which takes PyTorch a minute at full size."""
    monkeypatch.setattr(gates, "PARITY_FRAMES", (1, 65))


def test_foreign_checkpoint_is_imported_exported_and_separates(tmp_path: Path):
    network = random_network(dtype=torch.float32)
    state = dict(network.state_dict())
    foreign = tmp_path / "foreign.ckpt"
    torch.save(lightning_checkpoint(state), foreign)

    checkpoint, engine = tmp_path / "a.safetensors", tmp_path / "a.onnx"
    imported = bsm_json("import", foreign, "-o", checkpoint, "--config", "tiny")
    tensors, metadata = load_weights(checkpoint)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in state.items())
    assert metadata.provenance.source_sha256 == sha256_file(foreign)

    exported = bsm_json("export", checkpoint, "-o", engine)
    for path, report in ((checkpoint, imported), (engine, exported)):
        info = bsm_json("info", path)
        assert info["sha256"] == report["sha256"] == sha256_file(path)
        assert info["parameters"] == sum(tensor.numel() for tensor in state.values())

    mixture = np.random.default_rng(0).standard_normal((RATE // 2, 2)).astype(np.float32) / 10
    soundfile.write(tmp_path / "song.wav", mixture, RATE, subtype="FLOAT")
    by_backend = []
    for file in (engine, checkpoint):
        _, stems = separate(tmp_path / "song.wav", file, tmp_path / file.suffix)
        assert [stem.shape for stem in stems] == [mixture.shape] * 2
        assert_null(mixture, *stems)
        by_backend.append(stems[0])
    assert np.abs(by_backend[0]).max() > 0.01
    assert np.abs(by_backend[0] - by_backend[1]).max() < 1e-4


@pytest.mark.slow
def test_full_size_file_is_imported_and_exported_and_becomes_a_plan(
    plugin_library: Path, tmp_path: Path
):
    """Uses a checkpoint in the format of Music-Source-Separation-Training."""
    foreign, checkpoint, engine = (
        tmp_path / name for name in ("bs_mamba2_vocals.ckpt", "full.safetensors", "full.onnx")
    )
    network, _ = load_network("bsmamba2", seed=11)
    torch.save(network.state_dict(), foreign)
    imported = bsm_json("import", foreign, "-o", checkpoint)
    assert (imported["parameters"], imported["tensors"]) == (48_098_188, 675)
    assert imported["provenance"]["licence"] == "undeclared"
    tensors, _ = load_weights(checkpoint)
    assert all(torch.equal(tensors[name], value) for name, value in network.state_dict().items())
    del network, tensors
    exported = bsm_json("export", checkpoint, "-o", engine)
    assert [figure["frames"] for figure in exported["parity"]] == [1, 65]
    info = bsm_json("info", engine)
    assert (info["parameters"], info["scan_nodes"]) == (48_098_188, 12)
    assert_is_an_engine(engine, "bsmamba2")
    plan = built(tmp_path, engine, plugin_library)
    record, _ = read_sidecar(plan)
    assert (record.plugin_layers, record.frames) == (12, (801, 801, 801))
    assert plan.stat().st_size == pytest.approx(4 * 48.1e6, rel=0.1)
