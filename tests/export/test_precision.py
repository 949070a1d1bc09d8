"""Laws of lower precisions: what they keep in float32, and the gates in front of them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import pytest
import torch
from foreign_files import model_of
from networks import random_network
from onnx import ModelProto, TensorProto
from processes import bsm
from small_engines import small_metadata

from bsmamba2.checkpoints.weights import save_weights
from bsmamba2.config.model import ModelConfig
from bsmamba2.errors import ExportError
from bsmamba2.evaluation.reference_excerpt import load_reference_excerpt
from bsmamba2.export.precision.gates import Reference, check_precision, hostile_samples
from bsmamba2.export.to_onnx import export_onnx
from bsmamba2.formats.metadata import Metadata, Provenance, parse_metadata
from bsmamba2.formats.onnx_file import read_onnx_file
from bsmamba2.models.bsmamba2 import BSMamba2

HOSTILE = ("silence", "full-scale noise", "a 0 dBFS square wave", "denormals")
AUDIO = small_metadata().model.audio


def save_checkpoint(path: Path, network: BSMamba2) -> None:
    provenance = Provenance(source="a test", trained=True)
    save_weights(path, network.state_dict(), Metadata(model=network.model, provenance=provenance))


def short_network() -> BSMamba2:
    """The tiny network with chunks of a second."""
    tiny = model_of("tiny")
    audio = replace(tiny.audio, chunk_s=1)
    return random_network(ModelConfig(audio=audio, network=tiny.network), dtype=torch.float32)


@pytest.fixture(scope="module")
def short_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("short") / "short.safetensors"
    save_checkpoint(path, short_network())
    return path


# --- the float16 graph ---


@pytest.fixture(scope="module")
def half_graph(tiny_half: Path) -> ModelProto:
    """The float16 graph of the tiny network."""
    return onnx.load(tiny_half)


def types(model: ModelProto) -> dict[str, int]:
    """Element type of every tensor of the main graph."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def of_type(model: ModelProto, *kinds: str) -> set[int]:
    """Element types of all float inputs and outputs of nodes of some kinds."""
    known = types(model)
    nodes = [node for node in model.graph.node if node.op_type in kinds]
    assert {node.op_type for node in nodes} == set(kinds)
    names = {name for node in nodes for name in (*node.input, *node.output) if name}
    return {known[name] for name in names} - {TensorProto.INT64}


def test_products_are_float16(half_graph: ModelProto):
    assert of_type(half_graph, "MatMul", "Gemm", "Tanh", "Sigmoid") == {TensorProto.FLOAT16}


def test_both_kinds_of_norm_are_float32(half_graph: ModelProto):
    unit_norm, rms_norm = ("ReduceL2", "Clip", "Div"), ("Pow", "ReduceMean", "Sqrt", "Reciprocal")
    for kinds in (unit_norm, rms_norm):
        assert of_type(half_graph, *kinds) == {TensorProto.FLOAT}
    counts = [node.op_type for node in half_graph.graph.node]
    assert counts.count("ReduceL2") == 7 + 1  # groups of bands, and before the masks
    assert counts.count("ReduceMean") == 4  # blocks


def test_spectrum_is_float32_up_to_its_norm_and_mask_from_the_last_product_on(
    half_graph: ModelProto,
):
    known = types(half_graph)
    assert (known["spectrum"], known["mask"]) == (TensorProto.FLOAT, TensorProto.FLOAT)
    reached = {"spectrum"}
    for node in half_graph.graph.node:
        if reached & set(node.input) and node.op_type not in ("Shape", "Div"):
            assert node.op_type != "Cast"
            reached |= set(node.output)
    assert {known[name] for name in reached} == {TensorProto.FLOAT}
    makers = {name: node for node in half_graph.graph.node for name in node.output}
    name, moves = "mask", []
    while (node := makers[name]).op_type != "Cast":
        moves.append(node.op_type)
        name = node.input[0]
    assert set(moves) <= {"Transpose", "Reshape"}
    assert known[node.input[0]] == TensorProto.FLOAT16


def test_scans_take_half_signals_and_float32_steps_and_calculate_in_float32(
    half_graph: ModelProto,
):
    known = types(half_graph)
    for node in half_graph.graph.node:
        if node.op_type == "BiMamba2Scan":
            kinds = [known[name] for name in node.input]
            assert kinds == [TensorProto.FLOAT16] * 3 + [TensorProto.FLOAT] * 3
            assert known[node.output[0]] == TensorProto.FLOAT16
    whole = onnx.inliner.inline_local_functions(half_graph)
    kinds = ("Softplus", "Conv", "CumSum", "Exp")
    inside = [n for n in whole.graph.node if n.op_type in kinds]
    known = types(whole)
    floats = {known[name] for n in inside for name in n.output}
    assert floats == {TensorProto.FLOAT}


# --- the gates ---


def scaled(factor: float) -> Any:
    def engine(spectrum: np.ndarray) -> np.ndarray:
        mask = np.zeros_like(spectrum)
        mask[..., 0] = factor
        return mask

    return engine


def reference(voice: bool = False) -> Reference:
    heard = load_reference_excerpt(None, AUDIO)
    if voice:
        heard = replace(heard, voice=heard.mixture * np.float32(0.25))
    return Reference(scaled(0.5), heard, AUDIO)


def test_figures_of_a_known_difference_are_known():
    check = check_precision("a test", scaled(0.5 * 1.001), reference(voice=True), "float16")
    assert check.relative_rms == pytest.approx(0.001, rel=1e-3)
    assert check.sdr_db == pytest.approx(60, abs=0.01)
    # The error against the true target grows from 0.25 to 0.2505 of the mixture.
    assert check.usdr_loss_db == pytest.approx(20 * math.log10(0.2505 / 0.25), abs=1e-3)
    assert (check.engine, check.music, check.hostile) == ("a test", "a made-up mixture", HOSTILE)
    assert check.largest is None


@pytest.mark.parametrize(
    ("precision", "factor", "voice", "words"),
    [
        ("float16", 1.0025, False, ""),
        ("float16", 1.0035, False, "relative RMS may be at most 0.003"),
        ("float16", 0.9965, True, "at most 0.003 and the uSDR may change by at most 0.02 dB"),
        ("float16", 1.0025, True, "may change by at most 0.02 dB"),
        ("int8", 1.02, False, ""),
        ("int8", 1.04, False, "SDR to float32 must be at least 30 dB"),
        ("int8", 1.005, True, ""),
        ("int8", 1.02, True, "uSDR may change by at most 0.1 dB"),
        ("int8", 0.96, True, ""),  # closer to the true target than the reference
        ("int8", 0.85, False, "may be at most 0.1 and the SDR to float32 must be at least 30 dB"),
        ("float16", math.nan, False, "NaN or infinite"),
    ],
)
def test_each_precision_has_its_limits(precision: str, factor: float, voice: bool, words: str):
    candidate, known = scaled(0.5 * factor), reference(voice)
    if not words:
        check_precision("a test", candidate, known, precision)
        return
    with pytest.raises(ExportError, match=r"\A[^\n]+\Z") as error:
        check_precision("a test", candidate, known, precision)
    assert words in str(error.value)
    assert "a test" in str(error.value)
    assert "nothing was written" in str(error.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_number_that_is_not_finite_names_its_input(name: str):
    inputs = dict(hostile_samples(AUDIO))
    peaks = {what: np.abs(samples).max() for what, samples in inputs.items()}

    def candidate(spectrum: np.ndarray) -> np.ndarray:
        mask = scaled(0.5)(spectrum)
        loudness = np.abs(spectrum).max()
        found = min(HOSTILE, key=lambda what: abs(loudness - spectrum_peak(what)))
        mask[0, 0, 0, 0, 0] = np.inf if found == name and spectrum.shape[2] == 65 else 0.5
        return mask

    def spectrum_peak(what: str) -> float:
        from bsmamba2.evaluation.parity import spectrum_of

        return float(np.abs(spectrum_of(inputs[what][None], AUDIO)[:, :, :65]).max())

    assert peaks["silence"] == 0 < peaks["denormals"] < np.finfo(np.float32).tiny
    assert peaks["full-scale noise"] == pytest.approx(1, abs=1e-3)
    assert peaks["a 0 dBFS square wave"] == 1
    with pytest.raises(ExportError, match=f"On {name} "):
        check_precision("a test", candidate, reference(), "float16")


# --- the files ---


@pytest.mark.parametrize(("option", "precision"), [("--fp16", "float16"), ("--int8", "int8")])
def test_file_says_what_its_precision_costs(
    short_checkpoint: Path, tmp_path: Path, option: str, precision: str
):
    path = tmp_path / "a.onnx"
    _, out, said = bsm("export", short_checkpoint, option, "-o", path, "--json")
    report = json.loads(out)
    metadata = parse_metadata(read_onnx_file(path).metadata, path)
    assert (metadata.precision, report["precision"]) == (precision, precision)
    assert [figure.frames for figure in metadata.parity] == [1, 2, 63]
    assert report["checks"] == json.loads(json.dumps([asdict(c) for c in metadata.checks]))
    for check in metadata.checks:
        assert f"{check}.\n" in said
        assert (check.music, check.hostile) == ("a made-up mixture", HOSTILE)
        assert check.usdr_loss_db is None
    watched = [check.largest is not None for check in metadata.checks]
    assert watched == ([False, True] if precision == "float16" else [False])
    float32 = sum(4 * math.prod(t.shape) for t in short_network().state_dict().values())
    assert path.stat().st_size < float32


def test_overflow_that_onnx_runtime_does_not_see_refuses_the_file(tmp_path: Path):
    network = short_network()
    network.layers[1][0].backward_blocks[0].mixer.conv1d.bias.data.fill_(3e4)
    save_checkpoint(tmp_path / "a.safetensors", network)
    with pytest.raises(ExportError, match=r"On silence .*every value rounded to float16"):
        export_onnx(tmp_path / "a.safetensors", tmp_path / "a.onnx", precision="float16")
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["default", "--fp16"], "The precision of default is fixed"),
        (["tiny", "--fp16", "--int8"], "--fp16 and --int8 exclude each other"),
        (["a.onnx", "--int8", "--trt"], "int8 is for CPUs"),
        (["a.onnx", "--fp16", "--trt"], "export the .safetensors checkpoint"),
        (["tiny", "--int8", "--trt"], "int8 is for CPUs"),
        (["tiny", "--audio", "song.wav"], "add --fp16 or --int8"),
        (
            ["default"],
            "default is an ONNX engine already: add --trt to build a plan from it; a lower",
        ),
        (["default", "--trt", "--card", "a.yaml"], "--card goes into an ONNX file"),
        (["tiny", "--batch", "2"], "--batch applies to a plan: add --trt."),
        (["tiny", "--frames", "1"], "--frames applies to a plan: add --trt."),
        (["tiny", "--trt", "--plugin", "a.so", "--arch", "90"], "leave --arch out"),
    ],
)
def test_bad_usage_is_one_sentence(arguments: list[str], words: str, tmp_path: Path):
    code, _, said = bsm("export", *arguments, "-o", tmp_path / "out.onnx")
    assert code == 2
    assert words in said
    assert not list(tmp_path.iterdir())


def test_song_that_is_not_there_is_one_sentence(tmp_path: Path):
    said = bsm("export", "tiny", "--fp16", "--audio", "absent.wav", "-o", tmp_path / "out.onnx")
    assert said.code == 1
    assert "No such file: absent.wav" in said.err
    assert not list(tmp_path.iterdir())


def test_unknown_precision_is_refused(tmp_path: Path):
    with pytest.raises(ExportError, match="Unknown precision 'fp8': choose float32, float16, int8"):
        export_onnx("tiny", tmp_path / "a.onnx", precision="fp8")
