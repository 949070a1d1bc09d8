"""Resources of compiled kernels, read from the log of ptxas -v."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\w+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")


@dataclass(frozen=True, kw_only=True)
class KernelUsage:
    """Resources that one kernel takes on one architecture."""

    kernel: str
    """Mangled name, as in the machine code."""
    architecture: str
    """90 for sm_90."""
    registers: int
    """Registers of a thread."""
    stack_bytes: int
    """Stack of a thread: arrays, and registers that did not fit."""
    spill_bytes: int
    """Bytes that the code's spill loads and stores move, each counted once."""


def read_ptxas_log(text: str) -> list[KernelUsage]:
    """All kernels of a log, in order.

    Raises:
        ValueError: The log breaks off within a kernel, or its figures are worded differently.
    """
    parts = _ENTRY.split(text)[1:]  # name, architecture, text, repeated
    return [_read_kernel(*parts[i : i + 3]) for i in range(0, len(parts), 3)]


def _read_kernel(kernel: str, architecture: str, text: str) -> KernelUsage:
    stacks, registers = _STACK.findall(text), _REGISTERS.search(text)
    if not stacks or not registers:
        raise ValueError(f"No figures for {kernel} on sm_{architecture} in the log of ptxas")
    # Functions that were not inlined follow their kernel and count with it.
    stack, stores, loads = (sum(map(int, column)) for column in zip(*stacks, strict=True))
    return KernelUsage(
        kernel=kernel,
        architecture=architecture,
        registers=int(registers[1]),
        stack_bytes=stack,
        spill_bytes=stores + loads,
    )
