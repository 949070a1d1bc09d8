"""What a pickle's names and calls become; nothing is imported and nothing is called.

A `Global` is only a name. The few calls that rebuild torch's tensors give a `TensorRef`, the
constructors of plain values that honest checkpoints hold an `Inert`; any other call is refused.
"""

from __future__ import annotations

from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # what `pickle.load` maps, too
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Global:
    """A class or function that the pickle names."""

    name: str
    """"module.name"."""


@dataclass(frozen=True)
class Inert:
    """What would have been an object of a class, without its contents."""

    name: str


@dataclass(frozen=True)
class StorageRef:
    """A run of numbers elsewhere in the file."""

    key: str
    dtype: str
    """"float32", "bfloat16", ...; "" for a type that no weights have."""
    count: int
    """Numbers in the storage."""


@dataclass(frozen=True)
class TensorRef:
    """A tensor: a view of a storage, offset and strides in numbers."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class UnsafePickleError(Exception):
    """The pickle would call the function named."""


class DamagedPickleError(Exception):
    """The bytes are no pickle, or an incomplete one."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MAPPINGS = _words("collections.OrderedDict collections.defaultdict")
_TENSORS = _words("torch._utils._rebuild_tensor torch._utils._rebuild_tensor_v2")
_PARAMETERS = _words("torch._utils._rebuild_parameter torch._utils._rebuild_parameter_with_state")
_TENSOR_CLASSES = "torch._tensor._rebuild_from_type_v2"
_UNIONS = _words("functools.reduce _functools.reduce")  # of operator.or_: int | str
_HARMLESS = _words("""
    _codecs.encode _operator.getitem operator.getitem types.GenericAlias types.SimpleNamespace
    argparse.Namespace functools.partial collections.Counter collections.deque
    builtins.bool builtins.bytearray builtins.bytes builtins.complex builtins.dict builtins.float
    builtins.frozenset builtins.int builtins.list builtins.object builtins.range builtins.set
    builtins.slice builtins.str builtins.tuple builtins.type
    copyreg.__newobj__ copyreg.__newobj_ex__ copyreg._reconstructor
    datetime.date datetime.datetime datetime.time datetime.timedelta datetime.timezone
    decimal.Decimal fractions.Fraction uuid.UUID
    numpy.dtype numpy.ndarray numpy.core.multiarray._reconstruct numpy._core.multiarray._reconstruct
    numpy.core.multiarray.scalar numpy._core.multiarray.scalar
    numpy.core.numeric._frombuffer numpy._core.numeric._frombuffer
    numpy.random._pickle.__bit_generator_ctor numpy.random._pickle.__generator_ctor
    numpy.random._pickle.__randomstate_ctor
    pathlib.Path pathlib.PosixPath pathlib.WindowsPath
    pathlib.PurePath pathlib.PurePosixPath pathlib.PureWindowsPath
    pathlib._local.Path pathlib._local.PosixPath pathlib._local.WindowsPath
    torch.Size torch.device torch.serialization._get_layout
    torch._utils._rebuild_tensor_v3 torch._utils._rebuild_sparse_tensor
    torch._utils._rebuild_qtensor torch._utils._rebuild_meta_tensor_no_storage
    torch._utils._rebuild_device_tensor_from_numpy
    torch._utils._rebuild_device_tensor_from_cpu_tensor
""")
"""Constructors of plain values, as Lightning's and omegaconf's pickles hold them."""

_RUNNING_PACKAGES = _words("""
    asyncio code codeop commands ctypes imp importlib marshal multiprocessing nt os pickle pip
    platform posix pty runpy shutil socket subprocess sys timeit webbrowser
""")
_RUNNING_BUILTINS = _words("""
    __import__ apply breakpoint compile delattr eval exec execfile filter getattr globals input
    locals map open setattr vars
""")
_DTYPES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}


def named(module: Any, name: Any) -> Global:
    """A class or function by name; what runs code is refused even where it is not called."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise DamagedPickleError("a global without a name")
    if (module, name) in NAME_MAPPING:  # protocol 2, torch's own, writes names of Python 2
        module, name = NAME_MAPPING[module, name]
    module = IMPORT_MAPPING.get(module, module)
    builtin = module == "builtins" and name.partition(".")[0] in _RUNNING_BUILTINS
    if builtin or module.partition(".")[0] in _RUNNING_PACKAGES:
        raise UnsafePickleError(f"{module}.{name}")
    return Global(f"{module}.{name}")


def class_name(value: Any) -> str:
    """What a global or the class of an inert object is called."""
    if isinstance(value, (Global, Inert)):
        return value.name
    raise DamagedPickleError("an object of no class")


def made(kind: Any) -> Any:
    """A new object of a class, before its state: empty for mappings, inert for others."""
    name = class_name(kind)
    return {} if name in _MAPPINGS else Inert(name)


def called(function: Any, arguments: Any) -> Any:
    """What stands for the result of a call.

    Raises:
        UnsafePickleError: It is no call that honest checkpoints contain.
    """
    if not isinstance(function, Global):
        raise UnsafePickleError(f"the result of {class_name(function)}")
    name = function.name
    if name == _TENSOR_CLASSES:  # (function, class, its arguments, state)
        return called(arguments[0], arguments[2])
    if name in _PARAMETERS:
        return arguments[0]
    if name in _TENSORS:
        return _tensor(*arguments[:4])
    if name in _UNIONS and arguments[0] == Global("_operator.or_"):
        return Inert("types.UnionType")
    if name in _HARMLESS or name in _MAPPINGS:
        return made(function)
    raise UnsafePickleError(name)


def stored(identity: Any) -> StorageRef:
    """A storage from torch's ("storage", class, key, device, count[, view])."""
    kind, storage, key, _device, count = identity[:5]
    if kind != "storage" or not isinstance(key, str) or type(count) is not int or count < 0:
        raise DamagedPickleError("an unknown persistent object")
    if len(identity) > 5 and identity[5] is not None:
        raise DamagedPickleError("a view of a storage, as torch wrote before 0.4")
    dtype = class_name(storage).rpartition(".")[2].removesuffix("Storage")
    return StorageRef(key, _DTYPES.get(dtype, ""), count)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any) -> TensorRef:
    numbers = [offset, *shape, *stride]
    if not isinstance(storage, StorageRef) or any(type(n) is not int or n < 0 for n in numbers):
        raise DamagedPickleError("a tensor without a storage")
    if len(shape) != len(stride):
        raise DamagedPickleError("a tensor with unequal shape and stride")
    return TensorRef(storage, offset, tuple(shape), tuple(stride))
