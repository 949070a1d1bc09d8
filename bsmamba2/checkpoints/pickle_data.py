"""Reads a pickle as data: a restricted unpickler that can call nothing.

A pickle is a program for a small stack machine. Here its plain values (dict, list, str, numbers)
come out as they are and everything else as the inert stand-ins of `pickle_values`; there is no
import and no callable on the stack.
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from bsmamba2.checkpoints.pickle_values import (
    DamagedPickleError,
    StorageRef,
    UnsafePickleError,
    called,
    made,
    named,
    stored,
)
from bsmamba2.errors import CheckpointError

_MARK = object()
_INTEGERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"}
_STRINGS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}
_UNICODE = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_CONSTANTS = {"FLOAT", "BINFLOAT"} | _INTEGERS | _STRINGS | _UNICODE | _BYTES
_EMPTY: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,  # sets come out as lists: nothing but keys is hashed
    "EMPTY_TUPLE": tuple,
}


def read_pickle(
    stream: IO[bytes] | mmap.mmap, path: object, storages: dict[str, StorageRef] | None = None
) -> Any:
    """The data of the pickle at the stream's position; the stream is left behind its end.

    Args:
        stream: A seekable binary stream.
        path: The file, for messages.
        storages: Takes every storage that the pickle refers to, by key.

    Raises:
        CheckpointError: The pickle would call something, or is damaged.
    """
    try:
        return _Machine({} if storages is None else storages).run(stream)
    except UnsafePickleError as error:
        raise CheckpointError(
            f"{path} would call {error} when it is unpickled, so it is refused: "
            "get the weights as safetensors, or from a source you trust."
        ) from error
    except (DamagedPickleError, ValueError, LookupError, TypeError, MemoryError) as error:
        raise CheckpointError(
            f"{path} is not a PyTorch checkpoint or is damaged: download it again."
        ) from error


@dataclass
class _Machine:
    """The stack and the memo; one method an opcode, named after it (see `pickletools`)."""

    storages: dict[str, StorageRef]
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self, stream: IO[bytes] | mmap.mmap) -> Any:
        """Interprets opcodes until STOP."""
        for opcode, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _EMPTY:
                self.stack.append(_EMPTY[name]())
            elif handler := getattr(self, f"op_{name.lower()}", None):
                handler(argument)
            elif name in _CONSTANTS:
                self.stack.append(argument)
            elif name not in ("PROTO", "FRAME"):  # EXT1, PERSID, ...: torch writes none of them
                raise DamagedPickleError(name)
        raise DamagedPickleError("no STOP")

    # Stack and memo

    def op_mark(self, _: None) -> None:
        self.stack.append(_MARK)

    def op_pop(self, _: None) -> None:
        self.stack.pop()

    def op_pop_mark(self, _: None) -> None:
        self._pop_to_mark()

    def op_dup(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def op_get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    op_binget = op_long_binget = op_get

    def op_put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    op_binput = op_long_binput = op_put

    def op_memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _pop_to_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise DamagedPickleError("empty stack")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    # Containers; the contents of inert objects are dropped

    def op_tuple1(self, _: None) -> None:
        self.stack.append(tuple(self._pop(1)))

    def op_tuple2(self, _: None) -> None:
        self.stack.append(tuple(self._pop(2)))

    def op_tuple3(self, _: None) -> None:
        self.stack.append(tuple(self._pop(3)))

    def op_tuple(self, _: None) -> None:
        self.stack.append(tuple(self._pop_to_mark()))

    def op_list(self, _: None) -> None:
        self.stack.append(self._pop_to_mark())

    op_frozenset = op_list

    def op_dict(self, _: None) -> None:
        items = self._pop_to_mark()
        self.stack.append({})
        self._set(items)

    def op_append(self, _: None) -> None:
        self._extend(self._pop(1))

    def op_appends(self, _: None) -> None:
        self._extend(self._pop_to_mark())

    op_additems = op_appends

    def op_setitem(self, _: None) -> None:
        self._set(self._pop(2))

    def op_setitems(self, _: None) -> None:
        self._set(self._pop_to_mark())

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                if isinstance(key, (str, int, float, bytes)):
                    self.stack[-1][key] = value

    # Names, objects and calls

    def op_global(self, pair: str) -> None:
        module, _, name = pair.partition(" ")
        self.stack.append(named(module, name))

    def op_stack_global(self, _: None) -> None:
        self.stack.append(named(*self._pop(2)))

    def op_reduce(self, _: None) -> None:
        self.stack.append(called(*self._pop(2)))

    def op_inst(self, pair: str) -> None:
        arguments = tuple(self._pop_to_mark())
        self.op_global(pair)
        self.stack.append(called(self.stack.pop(), arguments))

    def op_obj(self, _: None) -> None:
        kind, *arguments = self._pop_to_mark()
        self.stack.append(called(kind, tuple(arguments)))

    def op_newobj(self, _: None) -> None:
        kind, _arguments = self._pop(2)
        self.stack.append(made(kind))

    def op_newobj_ex(self, _: None) -> None:
        kind, _arguments, _keywords = self._pop(3)
        self.stack.append(made(kind))

    def op_build(self, _: None) -> None:
        self._pop(1)  # an object's state, or a state dict's attributes

    def op_binpersid(self, _: None) -> None:
        (identity,) = self._pop(1)
        storage = stored(identity)
        self.storages[storage.key] = storage
        self.stack.append(storage)
