"""Laws of the whole way: a foreign checkpoint, imported, exported, separates music."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
import torch
from exported_files import assert_is_an_engine, assert_parity_is_stored
from foreign_files import lightning_checkpoint
from networks import random_network
from processes import bsm_json
from songs import assert_null, decoded, excerpt

from bsmamba2.checkpoints.weights import load_weights
from bsmamba2.formats.metadata import parse_metadata
from bsmamba2.formats.onnx_file import read_onnx_file
from bsmamba2.models.load import load_network
from bsmamba2.system.files import sha256_file

RATE = 44100


def separate(song: Path, engine: Path, out: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The command's report about one song, and its stems, vocals first."""
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


@pytest.mark.parametrize("container", ["lightning", "msst"])
def test_both_containers_are_imported_exported_and_separate(tmp_path: Path, container: str):
    network = random_network(dtype=torch.float32)
    state = dict(network.state_dict())
    foreign = tmp_path / "foreign.ckpt"
    torch.save(lightning_checkpoint(state) if container == "lightning" else state, foreign)

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


# --- full size, once ---


class Chain(NamedTuple):
    """Files of the way, and what the commands reported."""

    foreign: Path
    checkpoint: Path
    engine: Path
    imported: dict[str, Any]
    exported: dict[str, Any]
    seconds: dict[str, float]


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A file as Music-Source-Separation-Training keeps it, imported and exported: takes minutes."""
    folder = tmp_path_factory.mktemp("full_size")
    foreign, checkpoint, engine = (
        folder / name for name in ("bs_mamba2_vocals.ckpt", "full.safetensors", "full.onnx")
    )
    network, _ = load_network("bsmamba2", seed=11)
    torch.save(network.state_dict(), foreign)
    del network
    start = time.perf_counter()
    imported = bsm_json("import", foreign, "-o", checkpoint)
    between = time.perf_counter()
    exported = bsm_json("export", checkpoint, "-o", engine)
    seconds = {"import": between - start, "export": time.perf_counter() - between}
    return Chain(foreign, checkpoint, engine, imported, exported, seconds)


@pytest.mark.slow
def test_full_size_file_is_imported_and_exported(full_size: Chain):
    assert full_size.imported["parameters"] == 48_098_188
    assert full_size.imported["tensors"] == 675
    assert full_size.imported["provenance"]["licence"] == "undeclared"
    info = bsm_json("info", full_size.engine)
    assert info["parameters"] == 48_098_188
    assert info["scan_nodes"] == 12
    assert_is_an_engine(full_size.engine, "bsmamba2")
    metadata = parse_metadata(read_onnx_file(full_size.engine).metadata, full_size.engine)
    assert_parity_is_stored(metadata)
    assert full_size.exported["parity"] == [asdict(figure) for figure in metadata.parity]
    print(f"import {full_size.seconds['import']:.0f} s, export {full_size.seconds['export']:.0f} s")
    for figure in metadata.parity:
        print(figure)


@pytest.mark.slow
def test_full_size_engine_separates_real_music_into_stems_that_add_up(
    full_size: Chain, tmp_path: Path
):
    song = excerpt()
    mixture = decoded(song)
    file, stems = separate(song, full_size.engine, tmp_path)
    assert (file["sample_rate"], file["channels"]) == (RATE, 2)
    assert file["duration_s"] == pytest.approx(len(mixture) / RATE, abs=1e-3)
    assert [stem.shape for stem in stems] == [mixture.shape] * 2
    assert_null(mixture, *stems)
    assert all(np.abs(stem).max() > 1e-3 for stem in stems)
    print(f"{file['elapsed_s']} s for {file['duration_s']} s of audio")
