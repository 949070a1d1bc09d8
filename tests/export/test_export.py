"""Laws of `bsm export`: the file is the network and describes itself, or is not written."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported_files import assert_is_an_engine, assert_parity_is_stored, scan_nodes
from networks import random_network, random_spectrum
from onnx import ModelProto, numpy_helper
from processes import MAIN, bsm, python
from tolerances import assert_close

from bsmamba2.checkpoints.weights import load_weights
from bsmamba2.errors import BsmError, ExportError
from bsmamba2.export import to_onnx
from bsmamba2.export.onnx.scan_function import scan_function
from bsmamba2.export.precision import gates
from bsmamba2.export.to_onnx import export_onnx
from bsmamba2.formats.metadata import load_card, parse_metadata
from bsmamba2.formats.onnx_file import read_onnx_file
from bsmamba2.models.bsmamba2 import BSMamba2
from bsmamba2.models.folded import FoldedBSMamba2, fold
from bsmamba2.runtime.engines import default_engine_path
from bsmamba2.runtime.engines.base import EngineOptions
from bsmamba2.runtime.engines.onnxruntime import OnnxEngine
from bsmamba2.system.files import sha256_file


@pytest.fixture
def quick_gate(monkeypatch: pytest.MonkeyPatch) -> tuple[int, ...]:
    """Leaves out the gate's 801 frames, which take most of an export's time."""
    frames = (1, 65)
    monkeypatch.setattr(gates, "PARITY_FRAMES", frames)
    return frames


@pytest.fixture
def quick_graph(monkeypatch: pytest.MonkeyPatch, tiny_export: Path) -> None:
    """The graph of `tiny_export` for any network, for tests of what comes before and after."""
    monkeypatch.setattr(to_onnx, "export_graph", lambda *_: onnx.load(tiny_export))


# --- what is written ---


def test_file_is_opset_20_with_one_scan_a_block(tiny_export: Path):
    assert_is_an_engine(tiny_export, "tiny")
    assert len(scan_nodes(onnx.load(tiny_export))) == 4


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("frames", [1, 2, 62, 63, 64, 65, 130])
def test_mask_is_the_networks_at_any_batch_and_length(tiny_export: Path, batch: int, frames: int):
    assert_mask_is_the_networks(tiny_export, batch, frames)


def test_mask_of_a_chunk_of_audio_is_the_networks(tiny_export: Path):
    assert_mask_is_the_networks(tiny_export, 1, 801)


def assert_mask_is_the_networks(path: Path, batch: int, frames: int) -> None:
    spectrum = random_spectrum(batch, frames, dtype=torch.float32)
    with torch.no_grad():
        expected = random_network()(spectrum.double())
    mask = OnnxEngine(path, EngineOptions(device="cpu"))(spectrum.numpy())
    assert mask.dtype == np.float32
    assert_close(mask, expected, "float32", slack=3)  # two layers, one after the other


def test_metadata_comes_back_and_equal_weights_make_equal_files(
    tiny_checkpoint: Path, tiny_export: Path, tmp_path: Path
):
    said: list[str] = []
    metadata = export_onnx(tiny_checkpoint, tmp_path / "a.onnx", report=said.append)
    assert parse_metadata(read_onnx_file(tmp_path / "a.onnx").metadata, "a.onnx") == metadata
    source = load_weights(tiny_checkpoint)[1]
    for name in ("model", "provenance", "stems"):
        assert getattr(metadata, name) == getattr(source, name)
    assert metadata.stems == ("vocals", "instrumental")
    assert metadata.precision == "float32"
    assert_parity_is_stored(metadata)
    for figure in metadata.parity:  # and reported
        assert any(str(figure) in sentence for sentence in said)
    assert (tmp_path / "a.onnx").read_bytes() == tiny_export.read_bytes()


def test_file_holds_nothing_of_the_machine(tiny_checkpoint: Path, tiny_export: Path):
    data = tiny_export.read_bytes()
    folders = {Path.home(), Path(sys.prefix), Path(torch.__file__).parent}
    folders |= {Path(__file__).parents[2], tiny_checkpoint.parent, tiny_export.parent}
    for folder in folders - {Path("/")}:
        assert str(folder).encode() not in data
    assert not re.search(rb"site-packages|\.py\b|Traceback|File \"", data)


@pytest.mark.usefixtures("quick_gate")
def test_random_weights_say_so_and_follow_the_seed(tiny_onnx: Path, tmp_path: Path):
    metadata = export_onnx("tiny", tmp_path / "a.onnx", seed=1)
    assert not metadata.provenance.trained
    assert "seed 1" in metadata.provenance.source
    seeds = [onnx.load(path).graph.initializer for path in (tiny_onnx, tmp_path / "a.onnx")]
    assert [a.name for a in seeds[0]] == [b.name for b in seeds[1]]
    assert any(a.raw_data != b.raw_data for a, b in zip(*seeds, strict=True))


def test_embedded_engine_has_the_body_of_today():
    path = default_engine_path()
    net = parse_metadata(read_onnx_file(path).metadata, path).model.network
    assert list(onnx.load(path).functions) == [scan_function(net)], (
        "scan_function changed: export bench/embedded/model.safetensors again, with its card"
    )


# --- what is not written ---


def break_initializer(model: ModelProto, name: str, factor: float) -> ModelProto:
    (tensor,) = (t for t in model.graph.initializer if t.name.endswith(name))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[:2] *= np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


def assert_gate_fails(source: Path, folder: Path, older: bytes | None) -> None:
    """The gate fails and leaves the folder as it was."""
    target = folder / "a.onnx"
    if older:
        target.write_bytes(older)
    with pytest.raises(ExportError, match=r"\AThe exported mask differs from PyTorch's[^\n]+\Z"):
        export_onnx(source, target)
    assert [path.name for path in folder.iterdir()] == ["a.onnx"] * bool(older)
    assert not older or target.read_bytes() == older


@pytest.mark.usefixtures("quick_gate")
@pytest.mark.parametrize(
    ("name", "factor"),
    [("blocks.2.A", 1.1), ("blocks.3.out_proj", 100), ("blocks.0.bias", math.nan)],
)
@pytest.mark.parametrize("older", [None, b"an older file"])
def test_a_failed_gate_leaves_the_folder_as_it_was(
    tiny_checkpoint: Path,
    tiny_export: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    factor: float,
    older: bytes | None,
):
    broken = break_initializer(onnx.load(tiny_export), name, factor)
    monkeypatch.setattr(to_onnx, "export_graph", lambda *_: broken)
    assert_gate_fails(tiny_checkpoint, tmp_path, older)


@pytest.mark.usefixtures("quick_gate")
def test_gate_compares_with_the_network_before_folding(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fold_wrongly(network: BSMamba2, dtype: torch.dtype | None) -> FoldedBSMamba2:
        folded = fold(network, dtype)
        folded.blocks[1].out_proj[3] *= 1.01
        return folded

    monkeypatch.setattr(to_onnx, "fold", fold_wrongly)
    assert_gate_fails(tiny_checkpoint, tmp_path, None)


@pytest.mark.usefixtures("quick_graph")
@pytest.mark.parametrize("error", [MemoryError("no memory"), KeyboardInterrupt()])
def test_an_interrupted_export_leaves_no_file_and_no_folder(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(to_onnx, "OnnxEngine", fail)
    with pytest.raises(type(error)):
        export_onnx(tiny_checkpoint, tmp_path / "new" / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("quick_graph")
@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("a.ckpt", "a.onnx", "bsm import a.ckpt -o a.safetensors"),
        ("a.pt", "a.onnx", "No such file: a.pt"),
        ("huge", "a.onnx", "huge is not a model: name a .safetensors checkpoint"),
        ("song.wav", "a.onnx", "No such file: song.wav"),
        ("text.txt", "a.onnx", "text.txt is not a model: name a .safetensors checkpoint"),
        ("absent.safetensors", "a.onnx", "No such file: absent.safetensors"),
        ("absent.yaml", "a.onnx", "absent.yaml"),
        ("empty.safetensors", "a.onnx", "empty.safetensors"),
        ("text.safetensors", "a.onnx", "text.safetensors"),
        ("cut.safetensors", "a.onnx", "truncated"),
        ("foreign.safetensors", "a.onnx", "carries no BSMamba2 configuration"),
        ("folder.safetensors", "a.onnx", "is a folder"),
        ("tiny", "a.pb", "a.pb must end in .onnx"),
        ("tiny", "a", "a must end in .onnx"),
        ("tiny", "folder.onnx", "folder.onnx: a folder has that name"),
        ("tiny", "text.safetensors/a.onnx", "text.safetensors"),
    ],
)
def test_bad_sources_and_targets_are_one_sentence(
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    target: str,
    words: str,
):
    monkeypatch.chdir(tmp_path)
    data = tiny_checkpoint.read_bytes()
    torch.save({}, "a.ckpt")
    Path("text.txt").write_text("hello")
    Path("empty.safetensors").touch()
    Path("text.safetensors").write_text("hello, this is text\n")
    Path("cut.safetensors").write_bytes(data[:-1000])
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    Path("foreign.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"0000")
    Path("folder.safetensors").mkdir()
    Path("folder.onnx").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BsmError, match=r"\A[^\n]+\Z") as error:
        export_onnx(source, target)
    assert words in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


# --- the command ---


@pytest.fixture
def smallest(tmp_path: Path) -> Path:
    """A configuration that exports in half the time of the tiny one."""
    path = tmp_path / "smallest.yaml"
    sizes = "bands: [[205, 5]], d_model: 8, layers: 1, headdim: 8, d_state: 8, mask_expand: 1"
    path.write_text(f"base: tiny\nnetwork: {{{sizes}}}\n")
    return path


@pytest.mark.usefixtures("quick_graph")
def test_command_names_the_file_after_the_model(
    tiny_checkpoint: Path, tmp_path: Path, quick_gate: tuple[int, ...]
):
    source = tmp_path / "my.model.safetensors"
    source.write_bytes(tiny_checkpoint.read_bytes())
    code, out, err = bsm("export", source)
    assert (code, out) == (0, f"{tmp_path / 'my.model.onnx'}\n")
    assert len(re.findall(r"p99\.9 \|difference\| \S+, relative RMS \S+", err)) == len(quick_gate)
    assert "Random weights" not in err


@pytest.mark.parametrize(("option", "name"), [("--fp16", "a.fp16.onnx"), ("--int8", "a.int8.onnx")])
def test_a_lower_precision_does_not_replace_the_file_of_another(
    option: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("a.safetensors").touch()
    monkeypatch.setattr(to_onnx, "export_onnx", lambda *_, **__: None)
    assert bsm("export", "a.safetensors", option).out == f"{name}\n"


def test_command_speaks_json(smallest: Path, tmp_path: Path, quick_gate: tuple[int, ...]):
    target = tmp_path / "out.onnx"
    code, out, err = bsm("export", smallest, "-o", target, "--seed", "7", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["output"] == str(target)
    assert report["sha256"] == sha256_file(target)
    figures = parse_metadata(read_onnx_file(target).metadata, target).parity
    assert [figure["frames"] for figure in report["parity"]] == list(quick_gate)
    assert [figure["p999"] for figure in report["parity"]] == [figure.p999 for figure in figures]
    assert "Random weights" in err


def test_card_travels_in_the_file_and_a_wrong_one_writes_none(
    smallest: Path, tmp_path: Path, quick_gate: tuple[int, ...]
):
    card, target = tmp_path / "card.yaml", tmp_path / "out.onnx"
    card.write_text("training_data: a\nrecipe: b\nscores: [c]\nlimits: d\nlicense: e\n")
    code, _, err = bsm("export", smallest, "-o", target, "--card", card)
    assert code == 1
    assert "'license'; did you mean 'licence'?" in err
    assert not target.exists()
    card.write_text(card.read_text().replace("license", "licence"))
    assert bsm("export", smallest, "-o", target, "--card", card)[0] == 0
    assert parse_metadata(read_onnx_file(target).metadata, target).card == load_card(card)


def test_command_fails_with_one_sentence_and_code_1(tmp_path: Path):
    done = python(MAIN, "export", "absent.safetensors", folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "Error: No such file: absent.safetensors.\n"
    assert not list(tmp_path.iterdir())
