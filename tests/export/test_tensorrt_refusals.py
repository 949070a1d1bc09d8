"""What `bsm export --trt` refuses, each in one sentence, and leaves the folder as it was."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
import pytest
from onnx import ModelProto
from plan_building import build, refusal, scans

from bsmamba2.formats.trt_plan import sidecar_path


def assert_refused(folder: Path, sentence: str, *arguments: Any, before: str = "") -> None:
    """Refused with one sentence, and the folder is left as it was."""
    names = sorted(folder.rglob("*"))
    assert re.search(sentence, refusal(build(folder, *arguments, before=before)))
    assert sorted(folder.rglob("*")) == names


def without_our_nodes(model: ModelProto) -> None:
    for node in scans(model)[1:]:
        node.domain, node.op_type = "", "Identity"


def with_inlined_scans(model: ModelProto) -> None:
    model.CopyFrom(onnx.inliner.inline_local_functions(model))


def of_another_tool(model: ModelProto) -> None:
    del model.metadata_props[:]


def in_int8(model: ModelProto) -> None:
    (precision,) = (p for p in model.metadata_props if p.key == "bsm.precision")
    precision.value = '"int8"'


def with_an_unknown_operator(model: ModelProto) -> None:
    model.graph.node[0].op_type = "NoSuchOperator"


def with_a_body_to_inline(model: ModelProto) -> None:
    (name,) = (a for a in scans(model)[0].attribute if a.name == "plugin_namespace")
    name.s = b"7"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without_our_nodes, "has 1 bsm::BiMamba2Scan nodes for 4 blocks: export it again with"),
        (
            with_inlined_scans,
            "^Another tool has inlined .* nodes of a.onnx, .*: build the plan from",
        ),
        (of_another_tool, "a.onnx carries no BSMamba2 configuration"),
        (in_int8, "^a.onnx is int8, which is for CPUs: build the plan from the float32 or float16"),
        (with_an_unknown_operator, "TensorRT-RTX .* cannot parse a.onnx: .*NoSuchOperator"),
        (with_a_body_to_inline, "The network has 3 plugin layers for 4 scan nodes"),
    ],
)
def test_file_that_gives_no_plan_is_refused(
    tiny_onnx: Path,
    plugin_library: Path,
    tmp_path: Path,
    change: Callable[[ModelProto], None],
    sentence: str,
):
    model = onnx.load(tiny_onnx)
    change(model)
    onnx.save(model, tmp_path / "a.onnx")
    assert_refused(tmp_path, sentence, "a.onnx", plugin_library)


@pytest.mark.parametrize("kept", [0, 0.5])
def test_truncated_file_is_refused(
    tiny_onnx: Path, plugin_library: Path, tmp_path: Path, kept: float
):
    data = tiny_onnx.read_bytes()
    (tmp_path / "a.onnx").write_bytes(data[: int(kept * len(data))])
    assert_refused(tmp_path, "export or download it again", "a.onnx", plugin_library)


def test_missing_or_wrong_plugin_is_refused(tiny_onnx: Path, tmp_path: Path):
    (tmp_path / "text.so").write_text("no library")
    assert_refused(tmp_path, r"No such file: absent\.so\.", tiny_onnx, Path("absent.so"))
    assert_refused(tmp_path, "cannot be opened", tiny_onnx, tmp_path / "text.so")


def test_plugin_without_kernels_for_the_network_is_refused(tiny_onnx: Path, tmp_path: Path):
    """Otherwise TensorRT-RTX would build a plan that cannot run. The reason is on stderr."""
    from emulation import build_scan
    from native import compile_plugin

    scan = build_scan(tmp_path / "libbsm_scan.so", [(0, 64, 128)])
    plugin = compile_plugin(tmp_path / "libbsm_trt_plugin.so", scan)
    done = build(tmp_path, tiny_onnx, plugin)
    assert re.search("built no plan: .*configurePlugin", refusal(done))
    assert re.search("^bsm::BiMamba2Scan: .*holds no kernel", done.stderr, re.MULTILINE)
    assert not list(tmp_path.glob("*.plan*"))


def test_builders_refusal_is_its_last_error_and_an_older_plan_stays(
    tiny_onnx: Path, plugin_library: Path, tmp_path: Path
):
    plan = tmp_path / "a.plan"
    plan.write_bytes(b"older plan")
    sidecar_path(plan).write_bytes(b"older sidecar")
    many = ("--frames", "1:2:100000000")
    sentence = "TensorRT-RTX .* built no plan: .*Error Code"
    assert_refused(tmp_path, sentence, tiny_onnx, plugin_library, "-o", plan.name, *many)
    assert plan.read_bytes() == b"older plan"
    assert sidecar_path(plan).read_bytes() == b"older sidecar"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("-o", "a.onnx"), "a.onnx must end in .plan"),
        (("-o", "a"), "a must end in .plan"),
        (("-o", "folder.plan"), "Cannot write folder.plan: a folder has that name"),
        (("-o", "text/a.plan"), "Cannot write into text"),
        (("-o", "a.plan", "--frames", "3:2:4"), "in ascending order, not 3:2:4"),
        (("-o", "a.plan", "--frames", "0"), "must be 1 to"),
        (("-o", "a.plan", "--frames", "1:2"), "'1:2' is not a number of frames"),
        (("-o", "a.plan", "--frames", "9" * 30), "Frames must be 1 to 2147483647"),
        (("-o", "a.plan", "--batch", "9" * 30), "The batch must be 1 to 2147483647"),
    ],
)
def test_bad_targets_and_sizes_are_one_sentence(
    tiny_onnx: Path,
    plugin_library: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    sentence: str,
):
    (tmp_path / "folder.plan").mkdir()
    (tmp_path / "text").write_text("no folder")
    assert_refused(tmp_path, sentence, tiny_onnx, plugin_library, *arguments)
