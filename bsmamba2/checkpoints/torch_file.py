"""Reads files written by `torch.save` with PyTorch's weights-only loader.

That loader calls only functions that rebuild tensors and plain values. Placeholders replace all
other names in a pickle, so that a checkpoint may contain objects of its trainer. Nothing that a
pickle names is imported, and a file whose pickle would run code is refused; the error names the
function.
"""

from __future__ import annotations

import pickletools
import sys
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # Python 2 names, as in protocol 2
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import torch

from bsmamba2.errors import CheckpointError, one_line, short_reason

_MOST_TUPLES = 50_000  # a tensor takes 4; hashing 100 000 nested ones overflows the stack


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
    numpy.random.bit_generator.__pyx_unpickle_SeedSequence random.Random
    pathlib.Path pathlib.PosixPath pathlib.WindowsPath
    pathlib.PurePath pathlib.PurePosixPath pathlib.PureWindowsPath
    pathlib._local.Path pathlib._local.PosixPath pathlib._local.WindowsPath
""")
"""Constructors of plain values, which the pickles of Lightning and omegaconf call."""


class UnsafeCallError(Exception):
    """The pickle would call the function or class that the message names."""


class _Placeholders(type):
    """Metaclass of `Placeholder`, which defines what happens when a pickle calls one."""

    name: str

    def __call__(cls, *_arguments: Any) -> Any:
        if cls.name not in _HARMLESS:
            raise UnsafeCallError(cls.name)
        return super().__call__()


class Placeholder(metaclass=_Placeholders):
    """An object of a class that the pickle names, without its contents.

    Each subclass stands for one name. For subclasses of lists and dictionaries, which the loader
    fills, plain lists and dictionaries are made.
    """

    name = ""
    """"module.name", as in the pickle."""

    def __new__(cls, *_arguments: Any) -> Any:
        """Makes an object without state, as unpickling does."""
        if cls.name in _DICTIONARIES:
            return {}
        return [] if cls.name == "collections.deque" else object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Discards the state."""


def load_torch_file(path: Path) -> Any:
    """Reads a file written by `torch.save` without importing anything that its pickle names.

    Tensors are views of the memory-mapped file, unless its suffix is .safetensors.

    Returns:
        What was saved, with a `Placeholder` for each object of an unknown class.

    Raises:
        CheckpointError: The file is damaged, or its pickle would call something.
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
    except Exception as error:  # errors of zip, pickle and torch have no common base
        # torch hides the cause behind its advice to trust the file.
        cause = (error.__suppress_context__ and error.__context__) or error
        reason = one_line(short_reason(cause))
        if reason == "Unsupported operand 149":  # FRAME, which protocol 4 begins with
            reason = "pickle protocol 4 or newer, which PyTorch's weights-only loader does not read"
        raise CheckpointError(
            f"{path} is not a PyTorch checkpoint or is damaged ({reason}): "
            "download it again, or save its state_dict with torch.save."
        ) from error


def _examine(path: Path) -> tuple[list[str], int]:
    """Checks a zip archive; returns the names in its pickle and the size of its storages in bytes.

    The archive holds NAME/data.pkl and one entry NAME/data/KEY for each storage.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise CheckpointError(
                f"{path} is a zip archive but not a PyTorch checkpoint: name another file."
            )
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in archive.namelist():
            raise CheckpointError(f"{path} is a TorchScript module: save its state_dict instead.")
        # torch never compresses; without compression, a small file cannot expand in memory.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("compressed entries")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("entries larger than the file")
        if broken := archive.testzip():  # torch does not verify checksums
            raise ValueError(f"wrong checksum of {broken}")
        with archive.open(pickles[0]) as program:
            names = list(dict.fromkeys(_names(program)))
        room = sum(e.file_size for e in entries if e.filename.startswith(f"{root}data/"))
    return names, room


def _names(stream: IO[bytes]) -> Iterator[str]:
    """Yields the names that a pickle refers to, in order."""
    texts, tuples = deque(["", ""], maxlen=2), 0
    for opcode, argument, _ in pickletools.genops(stream):
        tuples += opcode.name.startswith("TUPLE")
        if tuples > _MOST_TUPLES:
            raise ValueError("more tuples than weights need")
        if opcode.name in ("GLOBAL", "INST"):
            module, _, name = str(argument).partition(" ")
        elif opcode.name == "STACK_GLOBAL":  # torch rejects it; this gives its name
            module, name = texts
        else:
            texts.extend([argument] if isinstance(argument, str) else [])
            continue
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        yield f"{module}.{name}"


def _load(path: Path, names: Iterable[str], room: int) -> Any:
    """Loads a file, given the names in its pickle and the size of its storages in bytes.

    Raises:
        UnsafeCallError: The pickle calls something that is not known to be harmless, or merely
            names such a thing in the standard library.
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
        warnings.simplefilter("ignore")  # torch warns about pickles that it did not write
        if path.suffix != ".safetensors":
            return torch.load(path, map_location=place, weights_only=True, mmap=True)
        with path.open("rb") as file:  # torch would judge by the path's suffix
            return torch.load(file, map_location=place, weights_only=True)
