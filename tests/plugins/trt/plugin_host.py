"""One plugin library driven through its IPluginV3 interface, without TensorRT."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.common.scans import ScanInputs
from bsmamba2.formats.operator import INPUTS, SIGNAL_INPUTS

TYPES = {torch.float32: 0, torch.float16: 1, torch.int8: 2, torch.int32: 3, torch.bfloat16: 7}
LINEAR, CHW4 = 0, 3  # TensorFormat
FLOAT32, INT32, CHAR, INT64 = 1, 5, 6, 10  # PluginFieldType


class Dims(ctypes.Structure):
    _fields_ = (("rank", ctypes.c_int32), ("d", ctypes.c_int64 * 8))


class Desc(ctypes.Structure):
    _fields_ = (
        ("dims", Dims),
        ("type", ctypes.c_int32),
        ("format", ctypes.c_int32),
        ("scale", ctypes.c_float),
    )


class FreeDesc(ctypes.Structure):
    _fields_ = (("desc", Desc), ("free", ctypes.c_uint32))


class Field(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("length", ctypes.c_int32),
    )


class Fields(ctypes.Structure):
    _fields_ = (("count", ctypes.c_int32), ("fields", ctypes.POINTER(Field)))


@dataclass(frozen=True)
class Spec:
    """A tensor without its data. Sizes of the axes in `free` are not fixed in the network."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    free: tuple[int, ...] = ()

    def desc(self, format: int = LINEAR) -> Desc:
        dims = Dims(len(self.shape), (ctypes.c_int64 * 8)(*self.shape))
        return Desc(dims, TYPES[self.dtype], format, 1.0)

    def free_desc(self) -> FreeDesc:
        return FreeDesc(self.desc(), sum(1 << axis for axis in self.free))


def field_collection(attributes: Mapping[str, tuple[int, bytes]]) -> Fields:
    """Converts attributes (name -> type and bytes) to fields of one element, or text."""
    fields = (Field * len(attributes))()
    keep = []
    for slot, (name, (kind, data)) in zip(fields, attributes.items(), strict=True):
        buffer = ctypes.create_string_buffer(data, max(len(data), 1))
        keep.append(buffer)
        address = ctypes.addressof(buffer) if data else None
        slot.name, slot.data, slot.type = name.encode(), address, kind
        slot.length = len(data) if kind == CHAR else int(bool(data))
    collection = Fields(len(attributes), fields)
    collection.keep = keep
    return collection


@dataclass(eq=False)
class Host:
    """The plugin library, loaded."""

    library: Path
    path: Path
    _host: Any = field(init=False)
    _creator: ctypes.c_void_p = field(init=False)

    def __post_init__(self) -> None:
        self._host = ctypes.CDLL(str(self.library))
        for name in ("load", "create", "clone", "attach", "reload"):
            getattr(self._host, f"host_{name}").restype = ctypes.c_void_p
        for name in ("messages", "creator_text", "metadata"):
            getattr(self._host, f"host_{name}").restype = ctypes.c_char_p
        self._host.host_field_names.restype = ctypes.POINTER(Fields)
        self._host.host_supports.restype = ctypes.c_bool
        creator = self._host.host_load(str(self.path).encode())
        assert creator
        self._creator = ctypes.c_void_p(creator)

    def identity(self) -> tuple[str, ...]:
        """Name, version and namespace of the creator."""
        texts = (self._host.host_creator_text(self._creator, what) for what in range(3))
        return tuple(text.decode() for text in texts)

    def field_names(self) -> list[str]:
        names = self._host.host_field_names(self._creator).contents
        return [names.fields[i].name.decode() for i in range(names.count)]

    def messages(self) -> str:
        """What was logged since the last call."""
        return self._host.host_messages().decode()

    def create(self, attributes: Mapping[str, tuple[int, bytes]]) -> Plugin | None:
        collection = field_collection(attributes)
        return self._plugin(self._host.host_create(self._creator, ctypes.byref(collection)))

    def create_without_fields(self) -> Plugin | None:
        return self._plugin(self._host.host_create(self._creator, None))

    def _plugin(self, address: int | None) -> Plugin | None:
        return Plugin(self, ctypes.c_void_p(address)) if address else None


class Plugin:
    """A layer."""

    def __init__(self, host: Host, address: ctypes.c_void_p) -> None:
        self._owner, self._host, self._self = host, host._host, address

    def __del__(self) -> None:
        self._host.host_delete(self._self)

    def _other(self, address: int | None) -> Plugin:
        other = self._owner._plugin(address)
        assert other
        return other

    def clone(self) -> Plugin:
        return self._other(self._host.host_clone(self._self))

    def attach(self) -> Plugin:
        """Returns the copy for an execution context."""
        return self._other(self._host.host_attach(self._self))

    def reload(self) -> Plugin:
        """Returns the copy that a loaded plan contains."""
        return self._other(self._host.host_reload(self._owner._creator, self._self))

    def metadata(self) -> str:
        return self._host.host_metadata(self._self).decode()

    def output_type(self, types: Sequence[torch.dtype]) -> torch.dtype | None:
        array = (ctypes.c_int32 * len(types))(*(TYPES[dtype] for dtype in types))
        result = ctypes.c_int32(-1)
        status = self._host.host_output_type(self._self, array, len(types), ctypes.byref(result))
        return None if status else {v: k for k, v in TYPES.items()}[result.value]

    def output_shape(self, inputs: Sequence[Spec]) -> list[tuple[int, bool]] | None:
        """Returns each size in this run, and whether it is a constant of the network."""
        descs = (FreeDesc * len(inputs))(*(spec.free_desc() for spec in inputs))
        dims, constant = (ctypes.c_int64 * 8)(), (ctypes.c_bool * 8)()
        rank = self._host.host_output_shape(self._self, descs, len(inputs), dims, constant)
        return None if rank < 0 else list(zip(dims[:rank], constant[:rank], strict=True))

    def supports(self, position: int, tensors: Sequence[Spec], format: int = LINEAR) -> bool:
        """Whether the tensor at `position` may have this format; `tensors` are six inputs and y."""
        descs = [spec.desc(format if i == position else LINEAR) for i, spec in enumerate(tensors)]
        array = (Desc * len(descs))(*descs)
        return self._host.host_supports(self._self, position, array, len(descs))

    def configure(self, inputs: Sequence[Spec]) -> int | None:
        """Returns the bytes of workspace for sizes up to these; None if the plugin refuses them."""
        descs = (FreeDesc * len(inputs))(*(spec.free_desc() for spec in inputs))
        size = ctypes.c_size_t()
        status = self._host.host_configure(self._self, descs, len(inputs), ctypes.byref(size))
        return None if status else size.value

    def shape_change(self, inputs: Sequence[Spec]) -> bool:
        descs = (Desc * len(inputs))(*(spec.desc() for spec in inputs))
        return self._host.host_shape_change(self._self, descs, len(inputs)) == 0

    def enqueue(
        self,
        tensors: Sequence[Tensor | None],
        specs: Sequence[Spec],
        y: Tensor | None,
        workspace: Tensor | None,
    ) -> bool:
        """Runs the plugin on memory of this process; returns whether it reports success."""

        def address(tensor: Tensor | None) -> int | None:
            return None if tensor is None else tensor.data_ptr()

        data = (ctypes.c_void_p * 6)(*map(address, tensors))
        descs = (Desc * 6)(*(spec.desc() for spec in specs))
        memory = ctypes.c_void_p(address(workspace))
        return (
            self._host.host_enqueue(self._self, descs, data, ctypes.c_void_p(address(y)), memory)
            == 0
        )


def operands(inputs: ScanInputs, dtype: torch.dtype) -> list[Tensor]:
    """The operator's inputs as an engine of this type has them."""
    return [
        tensor.to(dtype if name in SIGNAL_INPUTS else torch.float32).contiguous()
        for name, tensor in zip(INPUTS, inputs.tensors, strict=True)
    ]


def specs_of(tensors: Sequence[Tensor], *, free: tuple[int, ...] = ()) -> list[Spec]:
    """Descriptions of tensors; `free` are axes of the first."""
    return [
        Spec(tuple(tensor.shape), tensor.dtype, free if i == 0 else ())
        for i, tensor in enumerate(tensors)
    ]
