"""Reads the metadata and inventory of an ONNX file without onnx, protobuf or weights in memory.

An ONNX file is one protobuf message (`onnx.proto3`). Its wire format is a flat list of fields, each
a varint `number << 3 | wire_type` and a payload. Only the few fields needed here are read; all
others, above all tensor data, are skipped in a memory map.
"""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.errors import CheckpointError
from bsmamba2.formats.operator import BODY_NODE, SCAN_NODE
from bsmamba2.system.files import existing_file

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5  # wire types; 3 and 4, groups, are not used by ONNX

Buffer = mmap.mmap | bytes
Span = tuple[int, int]
Field = tuple[int, int | Span]
"""Field number, and its integer or the start and end of its bytes."""


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """Metadata and inventory of an ONNX model, without its subgraphs and function bodies."""

    ir_version: int
    """Version of the file format."""
    opsets: Mapping[str, int]
    """Domain ("" is ONNX's own) -> operator set version."""
    metadata: Mapping[str, str]
    """The model's `metadata_props`."""
    node_counts: Mapping[tuple[str, str], int]
    """(domain, op_type) -> nodes of the main graph."""
    initializers: Mapping[str, tuple[int, ...]]
    """Name -> dimensions of the main graph's constant tensors."""
    functions: list[tuple[str, str]]
    """(domain, name) of the functions that the file defines."""

    @property
    def scan_nodes(self) -> int:
        """Nodes of the custom operator in the main graph."""
        return self.node_counts.get(SCAN_NODE, 0)

    @property
    def inlined_scans(self) -> int:
        """Scans that another tool has replaced by the operators of their function body."""
        return self.node_counts.get(BODY_NODE, 0) // 2


class _DamagedError(Exception):
    """The bytes are not the expected protobuf message."""


def read_onnx_file(path: str | Path) -> OnnxFile:
    """Reads the metadata and inventory of an ONNX file.

    Raises:
        BsmError: No such file.
        CheckpointError: The file is not an ONNX model, or is truncated or damaged.
    """
    path = existing_file(path)
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise CheckpointError(f"{path} is empty: export or download it again.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _model(data)
    except (_DamagedError, UnicodeDecodeError, OSError) as error:
        raise CheckpointError(
            f"{path} is not an ONNX model or is damaged ({error}): export or download it again."
        ) from error


def _model(data: Buffer) -> OnnxFile:
    ir_version, has_graph = 0, False
    opsets: dict[str, int] = {}
    metadata: dict[str, str] = {}
    functions: list[tuple[str, str]] = []
    nodes: Counter[tuple[str, str]] = Counter()
    initializers: dict[str, tuple[int, ...]] = {}
    for number, value in _fields(data, (0, len(data))):
        match number, value:
            case 1, int():
                ir_version = value
            case 7, (int(), int()):
                has_graph = True
                _graph(data, value, nodes, initializers)
            case 8, (int(), int()):
                opsets[_string(data, value, 1)] = _integer(data, value, 2)
            case 14, (int(), int()):
                metadata[_string(data, value, 1)] = _string(data, value, 2)
            case 25, (int(), int()):
                functions.append((_string(data, value, 10), _string(data, value, 1)))
    if not ir_version or not has_graph:
        raise _DamagedError("it has no version or no graph")
    return OnnxFile(
        ir_version=ir_version,
        opsets=opsets,
        metadata=metadata,
        node_counts=dict(nodes),
        initializers=initializers,
        functions=functions,
    )


def _graph(
    data: Buffer,
    span: Span,
    nodes: Counter[tuple[str, str]],
    initializers: dict[str, tuple[int, ...]],
) -> None:
    """Adds a GraphProto's nodes and initializers to the two mappings."""
    for number, value in _fields(data, span):
        match number, value:
            case 1, (int(), int()):
                nodes[_string(data, value, 7), _string(data, value, 4)] += 1
            case 5, (int(), int()):
                initializers[_string(data, value, 8)] = _dims(data, value)


def _dims(data: Buffer, tensor: Span) -> tuple[int, ...]:
    """Returns the dimensions of a TensorProto, which may be packed or separate fields."""
    dims: list[int] = []
    for number, value in _fields(data, tensor):
        if number != 1:
            continue
        if isinstance(value, int):
            dims.append(value)
            continue
        position, end = value
        while position < end:
            size, position = _varint(data, position, end)
            dims.append(size)
    if any(size >= 1 << 63 for size in dims):
        raise _DamagedError("a tensor has a negative dimension")
    return tuple(dims)


def _string(data: Buffer, message: Span, wanted: int) -> str:
    """Returns the text of a field, "" if it is absent."""
    text = ""
    for number, value in _fields(data, message):
        if number == wanted and not isinstance(value, int):
            text = data[value[0] : value[1]].decode("utf-8")
    return text


def _integer(data: Buffer, message: Span, wanted: int) -> int:
    """Returns the integer of a field, 0 if it is absent."""
    result = 0
    for number, value in _fields(data, message):
        if number == wanted and isinstance(value, int):
            result = value
    return result


def _fields(data: Buffer, message: Span) -> Iterator[Field]:
    """Yields a message's fields in order; every step moves forward, so it ends on any bytes."""
    position, end = message
    while position < end:
        tag, position = _varint(data, position, end)
        number, wire_type = tag >> 3, tag & 7
        if not number:
            raise _DamagedError(f"field number 0 at byte {position}")
        if wire_type == _VARINT:
            value, position = _varint(data, position, end)
            yield number, value
            continue
        if wire_type == _LEN:
            length, position = _varint(data, position, end)
        elif wire_type in (_I64, _I32):
            length = 8 if wire_type == _I64 else 4
        else:
            raise _DamagedError(f"wire type {wire_type} at byte {position}")
        if length > end - position:
            raise _DamagedError(f"cut off at byte {end}")
        if wire_type == _LEN:
            yield number, (position, position + length)
        position += length


def _varint(data: Buffer, position: int, end: int) -> tuple[int, int]:
    """Reads an unsigned 64-bit integer, 7 bits per byte, lowest first; returns it and its end."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise _DamagedError(f"cut off at byte {end}")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
    raise _DamagedError(f"an endless integer at byte {position}")
