"""Files of `torch.save`, read by PyTorch's weights-only loader.

That loader calls nothing but what rebuilds tensors and plain values. Placeholders stand for the
other names in a pickle, so that a checkpoint may drag the objects of a trainer along: nothing that
a pickle names is imported, and what would run when it is unpickled is refused by its name.
"""

from __future__ import annotations

import pickletools
import sys
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # names of Python 2, as protocol 2 has them
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import torch

from bsmamba2.errors import CheckpointError, one_line, short_reason

_MOST_TUPLES = 50_000  # a tensor takes 4; hashing twice as many that are nested overflows the stack


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DICTIONARIES = _words("""
    collections.defaultdict pytorch_lightning.utilities.parsing.AttributeDict
    lightning_fabric.utilities.data.AttributeDict lightning.fabric.utilities.data.AttributeDict
""")
_HARMLESS = _DICTIONARIES | _words("""
    _codecs.encode _operator.getitem operator.getitem _operator.or_ types.GenericAlias
    functools.partial functools.reduce _functools.reduce types.SimpleNamespace
    argparse.Namespace collections.Counter collections.OrderedDict collections.deque
    builtins.bool builtins.bytes builtins.complex builtins.dict builtins.float
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
""")
"""Constructors of plain values, as Lightning's and omegaconf's pickles call them."""


class UnsafeCallError(Exception):
    """The pickle would call the function or class named."""


class _Placeholders(type):
    """The class of `Placeholder` and its subclasses: what happens when a pickle calls one."""

    name: str

    def __call__(cls, *_arguments: Any) -> Any:
        if cls.name not in _HARMLESS:
            raise UnsafeCallError(cls.name)
        return super().__call__()


class Placeholder(metaclass=_Placeholders):
    """An object of a class that the pickle names, without its contents.

    Its subclasses stand for one name each. The loader fills only lists and dictionaries, which
    come out as they are.
    """

    name = ""
    """"module.name", as the pickle has it."""

    def __new__(cls, *_arguments: Any) -> Any:
        """Makes an object before its state, as unpickling does."""
        if cls.name in _DICTIONARIES:
            return {}
        return [] if cls.name == "collections.deque" else object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Leaves the state out."""


def load_torch_file(path: Path) -> Any:
    """Reads a file of `torch.save`, importing nothing that its pickle names.

    Tensors are views of the mapped file.

    Returns:
        What was saved, a `Placeholder` for each object of an unknown class.

    Raises:
        CheckpointError: Damaged, or its pickle would call something.
    """
    try:
        return _load(path, *_examine(path))
    except CheckpointError:
        raise
    except UnsafeCallError as error:
        raise CheckpointError(
            f"{path} would call {one_line(short_reason(error))} when it is unpickled, so it is "
            "refused: get the weights as safetensors, or from a source you trust."
        ) from error
    except Exception as error:  # zip, pickle and torch have no common base
        # torch hides what happened behind the advice to trust the file.
        cause = (error.__suppress_context__ and error.__context__) or error
        reason = one_line(short_reason(cause))
        if reason == "Unsupported operand 149":  # FRAME, which protocol 4 begins with
            reason = "pickle protocol 4 or newer, which PyTorch's weights-only loader does not read"
        raise CheckpointError(
            f"{path} is not a PyTorch checkpoint or is damaged ({reason}): "
            "download it again, or save its state_dict with torch.save."
        ) from error


def _examine(path: Path) -> tuple[list[str], int]:
    """Names that the pickle of a zip archive refers to, and bytes of its storages.

    The archive holds NAME/data.pkl and one entry NAME/data/KEY for each storage.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise CheckpointError(
                f"{path} is a zip archive but no PyTorch checkpoint: name another."
            )
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in archive.namelist():
            raise CheckpointError(f"{path} is a TorchScript module: save its state_dict instead.")
        # torch compresses nothing, so that a small file cannot swell.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("compressed entries")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("entries larger than the file")
        if broken := archive.testzip():  # torch checks no sums
            raise ValueError(f"wrong checksum of {broken}")
        with archive.open(pickles[0]) as program:
            names = list(dict.fromkeys(_names(program)))
        room = sum(e.file_size for e in entries if e.filename.startswith(f"{root}data/"))
    return names, room


def _names(stream: IO[bytes]) -> Iterator[str]:
    """Names that a pickle refers to, in its order."""
    texts, tuples = deque(["", ""], maxlen=2), 0
    for opcode, argument, _ in pickletools.genops(stream):
        tuples += opcode.name.startswith("TUPLE")
        if tuples > _MOST_TUPLES:
            raise ValueError("more tuples than weights need")
        if opcode.name in ("GLOBAL", "INST"):
            module, _, name = str(argument).partition(" ")
        elif opcode.name == "STACK_GLOBAL":  # torch's loader knows it not: only to be refused
            module, name = texts
        else:
            texts.extend([argument] if isinstance(argument, str) else [])
            continue
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        yield f"{module}.{name}"


def _load(path: Path, names: Iterable[str], room: int) -> Any:
    """What was saved in a file, whose storages take `room` bytes.

    Raises:
        UnsafeCallError: The pickle calls what is not known to be harmless, or so much as names
            such a thing of the standard library.
        Exception: Whatever zip, pickle and torch raise for damaged files.
    """
    for name in names:
        module = name.rpartition(".")[0]
        standard = module.partition(".")[0] in sys.stdlib_module_names and module != "typing"
        if standard and name not in _HARMLESS:
            raise UnsafeCallError(name)
    placeholders: list[Any] = [(type("Placeholder", (Placeholder,), {"name": n}), n) for n in names]

    def place(storage: Any, _device: str) -> Any:
        nonlocal room
        room -= storage.nbytes()
        if room < 0:
            raise ValueError("storages larger than the file")
        return storage

    with warnings.catch_warnings(), torch.serialization.safe_globals(placeholders):
        warnings.simplefilter("ignore")  # about pickles that torch does not write
        return torch.load(path, map_location=place, weights_only=True, mmap=True)
