"""Laws of `bsm info`."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from exported_files import inline_scans
from foreign_files import model_of, random_weights
from onnx import TensorProto, helper, numpy_helper
from plans import write_plan
from processes import bsm, bsm_json, printed
from safetensors.torch import save_file

from bsmamba2.checkpoints.weights import save_weights
from bsmamba2.cli.info_record import inspect_file, lines
from bsmamba2.errors import BsmError, CheckpointError, ConfigError, FileError
from bsmamba2.formats.metadata import MaskParity, Metadata, ModelCard, PrecisionCheck, Provenance
from bsmamba2.formats.tensors import parameter_count, tensor_shapes
from bsmamba2.formats.trt_plan import PlanRecord
from bsmamba2.system.files import sha256_file

TINY = model_of("tiny")
STATE = random_weights(TINY)
METADATA = Metadata(
    model=TINY,
    provenance=Provenance(source="a.ckpt", source_sha256="00" * 32, trained=True),
    parity=(MaskParity(frames=63, p999=3e-7, relative_rms=4e-7),),
    stems=("vocals", "instrumental"),
)


def save_onnx(path: Path, metadata: Metadata | None) -> None:
    node = helper.make_node("BiMamba2Scan", ["x"], ["y"], domain="bsm")
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    weight = numpy_helper.from_array(np.zeros((4, 5), np.float32), "w")
    graph = helper.make_graph([node], "g", [info], [info], [weight])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("bsm", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    if metadata:
        helper.set_model_props(model, metadata.to_pairs())
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("name", "parameters", "tensors"),
    [("bsmamba2", 48_098_188, 675), ("tiny", parameter_count(TINY), len(tensor_shapes(TINY)))],
)
def test_configuration_gives_its_counts(
    tmp_path: Path, name: str, parameters: int, tensors: int
) -> None:
    record = bsm_json("info", name)
    assert record["parameters"] == parameters
    assert record["tensors"] == tensors
    assert record["sha256"] is None
    network = json.loads(json.dumps(model_of(name).to_dict()))["network"]
    assert record["config"]["network"] == network
    (tmp_path / "wide.yaml").write_text(f"base: {name}\nnetwork:\n  d_model: 32\n")
    assert bsm_json("info", tmp_path / "wide.yaml")["config"]["network"]["d_model"] == 32


def test_checkpoint_gives_what_it_carries(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, STATE, METADATA)
    record = bsm_json("info", path)
    assert record["kind"] == "checkpoint"
    assert record["parameters"] == sum(t.numel() for t in STATE.values())
    assert record["tensors"] == len(STATE)
    assert record["sha256"] == sha256_file(path)
    assert record["config"] == json.loads(json.dumps(TINY.to_dict()))
    assert record["provenance"]["licence"] == "undeclared"
    assert record["stems"] == ["vocals", "instrumental"]


def test_onnx_file_gives_graph_and_network(tmp_path: Path) -> None:
    save_onnx(tmp_path / "a.onnx", METADATA)
    record = bsm_json("info", tmp_path / "a.onnx")
    assert (record["scan_nodes"], record["opset"], record["functions"]) == (1, 20, [])
    assert (record["graph_parameters"], record["graph_tensors"]) == (20, 1)
    assert (record["parameters"], record["tensors"]) == (parameter_count(TINY), len(STATE))
    assert record["parity"] == [{"frames": 63, "p999": 3e-7, "relative_rms": 4e-7}]
    assert record["precision"] == "float32"
    assert record["sha256"] == sha256_file(tmp_path / "a.onnx")
    assert record["checks"] == []


def test_lower_precision_says_what_it_costs(tmp_path: Path) -> None:
    rounded = PrecisionCheck(
        engine="PyTorch",
        music="6.1 s of real music",
        relative_rms=6e-4,
        sdr_db=68.4,
        usdr_loss_db=0.0003,
        hostile=("silence", "denormals"),
        largest=104.0,
    )
    plain = replace(rounded, engine="ONNX Runtime", usdr_loss_db=None, largest=None)
    metadata = replace(METADATA, precision="float16", checks=(plain, rounded))
    save_onnx(tmp_path / "a.onnx", metadata)
    record = bsm_json("info", tmp_path / "a.onnx")
    assert record["checks"] == json.loads(json.dumps([asdict(plain), asdict(rounded)]))
    rows = [text for label, text in lines(record) if label == "loss in float16"]
    assert rows == [
        "ONNX Runtime, 6.1 s of real music: relative RMS 6.0e-04, SDR to float32 68.4 dB; "
        "finite on silence, denormals",
        "PyTorch, 6.1 s of real music: relative RMS 6.0e-04, SDR to float32 68.4 dB, "
        "uSDR loss 0.0003 dB; finite on silence, denormals (largest intermediate value 104)",
    ]


def test_export_has_a_scan_node_per_block(tiny_onnx: Path) -> None:
    record = bsm_json("info", tiny_onnx)
    assert record["scan_nodes"] == 2 * record["config"]["network"]["layers"]
    assert record["opset"] == 20
    assert ["bsm", "BiMamba2Scan"] in record["functions"]


def test_inlined_scans_are_said_to_be_inlined(tiny_onnx: Path, tmp_path: Path) -> None:
    path = inline_scans(tiny_onnx, tmp_path / "a.onnx", "onnx.inliner")
    record = bsm_json("info", path)
    assert (record["scan_nodes"], record["inlined_scans"], record["functions"]) == (0, 4, [])
    assert dict(lines(record))["scan nodes"].startswith("none: another tool has inlined 4 scans,")


def test_people_get_an_aligned_table(tmp_path: Path) -> None:
    save_onnx(tmp_path / "a.onnx", METADATA)
    out = bsm("info", tmp_path / "a.onnx").out
    rows = out.splitlines()
    width = max(len(label) for label, _ in lines(inspect_file(tmp_path / "a.onnx")))
    assert all(row[width : width + 2] == "  " and row[width + 2] != " " for row in rows)
    assert f"{parameter_count(TINY):,} in {len(STATE)} tensors" in out
    assert "undeclared" in out


def test_a_text_of_a_file_adds_no_line_and_steers_no_terminal(tmp_path: Path) -> None:
    provenance = Provenance(source="a", licence="MIT\nweights  mine\x1b[2J", trained=False)
    save_onnx(tmp_path / "a.onnx", replace(METADATA, provenance=provenance))
    out = bsm("info", tmp_path / "a.onnx").out
    assert re.search(r"^licence +MIT\?weights  mine\?\[2J$", out, re.M)
    assert re.search(r"^trained +no: random weights", out, re.M)


def test_card_comes_back_and_is_shown_in_full(tmp_path: Path) -> None:
    card = ModelCard(
        training_data="two songs", recipe="make it", scores=("1 dB", "2 dB"), limits="few",
        licence="MIT",
    )  # fmt: skip
    save_onnx(tmp_path / "a.onnx", replace(METADATA, card=card))
    record = inspect_file(tmp_path / "a.onnx")
    assert record["card"] == asdict(card)
    rows = list(lines(record))
    assert [text for label, text in rows if label == "measured"] == ["1 dB", "2 dB"]
    assert [text for label, text in rows if label == "licence"] == ["MIT"]
    assert {"two songs", "make it", "few"} <= {text for _, text in rows}


def test_what_cannot_be_described_is_one_sentence(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.ckpt")
    save_file(STATE, tmp_path / "foreign.safetensors")
    save_onnx(tmp_path / "foreign.onnx", None)
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    state = STATE | {"final_norm.gamma": torch.zeros(3)}
    save_file(state, tmp_path / "shape.safetensors", metadata=METADATA.to_pairs())
    expected = {
        "a.ckpt": "bsm import",
        "foreign.safetensors": "bsm import",
        "foreign.onnx": "bsm export",
        "text.onnx": "not an ONNX model",
        "a.wav": "bsm info",
        "shape.safetensors": "another shape",
    }
    for name, words in expected.items():
        with pytest.raises(CheckpointError, match=words) as error:
            inspect_file(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(BsmError, match="No such file"):
        inspect_file(tmp_path / "absent.onnx")
    with pytest.raises(ConfigError, match="tiny"):
        inspect_file("absent")


@pytest.mark.parametrize(
    ("name", "words"),
    [(".", "is a folder"), ("plain", "is a folder"), ("/dev/null", "is not a regular file")],
)
def test_what_is_no_file_is_not_taken_for_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain").mkdir()
    Path("tiny").mkdir()
    with pytest.raises(FileError, match=f"{name} {words}"):
        inspect_file(name)
    assert inspect_file("tiny")["kind"] == "configuration"


@pytest.mark.parametrize(
    "header",
    [
        [],
        3,
        {"a": 3},
        {"__metadata__": None},
        {"__metadata__": ["bsm.config"]},
        {"__metadata__": {"bsm.config": 3}},
        {"a": {"shape": "ab", "data_offsets": [0, 0]}},
        {"a": {"shape": [1], "data_offsets": [0, "x"]}},
        {"a": {"shape": [1], "data_offsets": [0, 1 << 80]}},
    ],
)
def test_headers_of_wrong_types_are_one_sentence(tmp_path: Path, header: Any) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(CheckpointError):
        inspect_file(tmp_path / "a.safetensors")


def test_describing_does_not_import_torch(tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", STATE, METADATA)
    save_onnx(tmp_path / "a.onnx", METADATA)
    code = (
        "import sys; from bsmamba2.cli import cli;"
        "[cli.main(['info', a], standalone_mode=False) for a in sys.argv[1:]];"
        "print(sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    out = printed(code, "tiny", tmp_path / "a.safetensors", tmp_path / "a.onnx")
    assert out.splitlines()[-1] == "[]"


# --- plans ---


@pytest.mark.parametrize(
    ("architectures", "text"),
    [
        ((), "any kind that TensorRT-RTX supports"),
        (("8.0", "9.0"), "compute capability 8.0, 9.0"),
    ],
)
def test_plan_names_its_gpus(
    tiny_onnx: Path, tmp_path: Path, architectures: tuple[str, ...], text: str
):
    def change(record: PlanRecord) -> PlanRecord:
        return replace(record, architectures=architectures)

    plan = write_plan(tiny_onnx, tmp_path / "a.plan", change=change)
    assert dict(lines(inspect_file(str(plan))))["for GPUs of"] == text
