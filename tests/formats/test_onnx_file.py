"""Laws of the ONNX reader: it agrees with the onnx package, and ends on any bytes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from exported_files import INLINERS, inline_scans
from onnx import TensorProto, helper, numpy_helper
from processes import printed

from bsmamba2.errors import BsmError, CheckpointError
from bsmamba2.formats.onnx_file import read_onnx_file


def small_model(metadata: dict[str, str] | None = None) -> onnx.ModelProto:
    """A model with two domains, a function, a scalar, and a tensor in an attribute."""
    floats = TensorProto.FLOAT
    packed = helper.make_tensor("packed", floats, [2, 3], np.zeros(6, np.float32))
    constant = helper.make_tensor("c", floats, [1], [1.0])
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Constant", [], ["c"], value=constant),
        helper.make_node("BiMamba2Scan", ["y"], ["a"], domain="bsm", n_heads=2, eps=1e-5),
        helper.make_node("BiMamba2Scan", ["a"], ["z"], domain="bsm", n_heads=2, eps=1e-5),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", floats, ["batch", 3])],
        [helper.make_tensor_value_info("z", floats, None)],
        [
            numpy_helper.from_array(np.ones((3, 300), np.float32), "w"),
            numpy_helper.from_array(np.float32(1), "scalar"),
            numpy_helper.from_array(np.zeros((0, 4), np.int64), "empty"),
            packed,
        ],
        doc_string="ünïcode",
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("bsm", 1)]
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("bsm", "BiMamba2Scan", ["a"], ["b"], body, opsets[:1])
    model = helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=10)
    helper.set_model_props(model, metadata or {"key": "wert ä", "empty": ""})
    return model


def assert_agrees(path: Path) -> None:
    file, model = read_onnx_file(path), onnx.load(path)
    assert file.ir_version == model.ir_version
    assert file.opsets == {opset.domain: opset.version for opset in model.opset_import}
    assert file.metadata == {pair.key: pair.value for pair in model.metadata_props}
    assert file.node_counts == Counter((n.domain, n.op_type) for n in model.graph.node)
    assert file.initializers == {t.name: tuple(t.dims) for t in model.graph.initializer}
    assert file.functions == [(f.domain, f.name) for f in model.functions]


def test_reader_agrees_with_onnx(tmp_path: Path) -> None:
    onnx.save(small_model(), tmp_path / "a.onnx")
    assert_agrees(tmp_path / "a.onnx")


def test_reader_agrees_with_onnx_on_an_export(tiny_onnx: Path) -> None:
    assert_agrees(tiny_onnx)


def test_scans_are_counted_as_nodes_or_as_inlined_bodies(tiny_onnx: Path, tmp_path: Path) -> None:
    file = read_onnx_file(tiny_onnx)
    assert (file.scan_nodes, file.inlined_scans) == (4, 0)
    for tool in INLINERS:
        file = read_onnx_file(inline_scans(tiny_onnx, tmp_path / "a.onnx", tool))
        assert (file.scan_nodes, file.inlined_scans) == (0, 4)


def test_dimensions_may_be_packed_or_single(tmp_path: Path) -> None:
    name = b"\x42\x01w"
    packed, single = b"\x0a\x03\x02\xac\x02" + name, b"\x08\x02\x08\xac\x02" + name
    for tensor in (packed, single):
        graph = b"\x2a" + bytes([len(tensor)]) + tensor
        (tmp_path / "a.onnx").write_bytes(b"\x08\x0a\x3a" + bytes([len(graph)]) + graph)
        assert read_onnx_file(tmp_path / "a.onnx").initializers == {"w": (2, 300)}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads peak memory of Linux")
def test_tensor_data_is_not_read(tmp_path: Path) -> None:
    """A sparse file of 1 GB of weights is described in a process of little memory."""
    model = small_model()
    path = tmp_path / "a.onnx"
    size = 1 << 30
    onnx.save(model, path)
    with path.open("ab") as file:  # one more field 7 (graph): initializer w2 with raw_data
        raw = b"\x42\x02w2\x4a" + varint(size)
        tensor = b"\x2a" + varint(len(raw) + size) + raw
        file.write(b"\x3a" + varint(len(tensor) + size) + tensor)
        file.truncate(file.tell() + size)
    code = (
        "import re, sys; from bsmamba2.formats.onnx_file import read_onnx_file;"
        "print('w2' in read_onnx_file(sys.argv[1]).initializers);"
        "status = open('/proc/self/status').read();"
        "print(int(re.search(r'VmHWM:\\s*(\\d+) kB', status)[1]) < 100_000)"
    )
    assert printed(code, path).split() == ["True", "True"]


def varint(value: int) -> bytes:
    out = b""
    while value >= 128:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x08",
        b"hello",
        b"\x08\x0a",
        b"\xff" * 20,
        b"\x3a\xff\xff\xff\xff\x0f",
        b"\x0b",
    ],
)
def test_what_is_no_model_is_one_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as error:
        read_onnx_file(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_absent_files_and_folders_are_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.onnx"):
        with pytest.raises(BsmError):
            read_onnx_file(path)


def test_truncations_are_noticed_or_complete(tmp_path: Path) -> None:
    data = small_model().SerializeToString()
    path = tmp_path / "a.onnx"
    complete = 0
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        try:
            read_onnx_file(path)
            complete += 1  # cut between two fields after the graph
        except CheckpointError:
            pass
    assert complete < 3


def test_arbitrary_bytes_end_in_a_model_or_in_a_sentence(tmp_path: Path) -> None:
    data = small_model().SerializeToString()
    generator = np.random.default_rng(0)
    path = tmp_path / "a.onnx"
    for i in range(600):
        if i % 3 == 0:
            program = bytearray(generator.bytes(generator.integers(300)))
        else:
            program = bytearray(data)
            for position in generator.integers(0, len(data), generator.integers(1, 9)):
                program[position] = generator.integers(256)
        path.write_bytes(program)
        try:
            read_onnx_file(path)
        except CheckpointError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_reading_imports_neither_onnx_nor_torch(tmp_path: Path) -> None:
    onnx.save(small_model(), tmp_path / "a.onnx")
    code = (
        "import sys; from bsmamba2.formats.onnx_file import read_onnx_file;"
        "read_onnx_file(sys.argv[1]);"
        "print({'onnx', 'torch', 'google', 'numpy'} & set(sys.modules))"
    )
    assert printed(code, tmp_path / "a.onnx") == "set()\n"
