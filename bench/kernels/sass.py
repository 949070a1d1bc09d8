"""Machine code as nvdisasm prints it: instructions, their kinds and their source lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

Place = tuple[str, int]
"""Name of a file without its folder, and a line number from 1."""

_SECTION = re.compile(r"\.text\.(\w+):")
_LABEL = re.compile(r"(\.L_x_\d+):")
_SOURCE = re.compile(r'//## File "([^"]+)", line (\d+)')
_INSTRUCTION = re.compile(
    r"\s+/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?:@!?U?P\w+\s+)?(?P<opcode>[A-Z][\w.]*)"
    r"\s*(?P<operands>[^;]*);"
)
_TARGET = re.compile(r"\.L_x_\d+")

CLASSES: tuple[tuple[str, str], ...] = (  # the first that matches the opcode with its suffixes
    ("tensor", r"[HIDQ]MMA"),
    ("mufu", r"MUFU"),
    ("conversion", r"F2F|F2I|I2F|HADD2(?:_MMA)?\.F32|HADD2\.BF16"),
    ("fp64", r"D(?:ADD|MUL|FMA|SETP|MNMX)"),
    ("fp16", r"H(?:ADD|MUL|FMA|MNMX|SET)|VHMNMX"),
    ("fp32", r"F(?:ADD|MUL|FMA|MNMX|SETP|SEL|CHK|SET\b|SWZ)"),
    ("shared load", r"LDSM|LDS"),
    ("shared store", r"STSM|STS"),
    ("async copy", r"LDGSTS|UBLKCP|UTMA"),
    ("global load", r"LDG"),
    ("global store", r"STG"),
    ("cluster load", r"LD\b|LD\."),  # from a peer's shared memory; no other access is generic
    ("cluster store", r"ST\b|ST\."),
    ("prefetch", r"CCTL"),
    ("shuffle", r"SHFL|MOVM"),
    ("barrier", r"BAR|UCGABAR|MEMBAR|ERRBAR|LDGDEPBAR|DEPBAR|SYNCS|FENCE|CGAERRBAR|ARRIVES"),
    (
        "control",
        r"BRA|BRX|BSSY|BSYNC|BREAK|CALL|RET|EXIT|WARPSYNC|NOP|BPT|YIELD|ENDCOLLECTIVE|ACQBULK",
    ),
)  # all others: integers, addresses, moves, constants
_INTEGER = "integer"
_COMPILED = [(name, re.compile(pattern)) for name, pattern in CLASSES]
KINDS = (*(name for name, _ in CLASSES), _INTEGER)


@dataclass(frozen=True)
class Instruction:
    """One instruction of a warp."""

    opcode: str
    target: str
    """The label that a branch goes to; "" for others."""
    places: tuple[Place, ...]
    """Source lines: the innermost function's first, then its caller's."""

    @property
    def kind(self) -> str:
        """One of KINDS."""
        return next((name for name, form in _COMPILED if form.match(self.opcode)), _INTEGER)

    @property
    def l1_passes(self) -> int:
        """Clocks of L1 and shared memory, at 128 bytes each and without bank conflicts."""
        if self.kind.split()[-1] not in ("load", "store"):
            return 4 if self.kind == "async copy" else 0  # 16 bytes a lane
        if match := re.search(r"LDSM.*?\.([124])$|LDSM.*?\.([124])\b", self.opcode):
            return int(match[1] or match[2])
        suffix = re.search(r"\.(64|128)\b", self.opcode)
        return int(suffix[1]) // 32 if suffix else 1


@dataclass(frozen=True)
class Loop:
    """Instructions from `first` to `last`, which is the backward branch."""

    first: int
    last: int
    places: tuple[Place, ...]
    """Source lines of the branch, the line of the `for` first."""


@dataclass
class Kernel:
    """The code of one kernel."""

    name: str
    """Mangled name."""
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    @property
    def short_name(self) -> str:
        """The name without namespace and types."""
        match = re.match(r"_ZN3bsm\d+(scan_short|scan_chunks|normalise)", self.name)
        return match[1] if match else self.name

    @property
    def end(self) -> int:
        """Index after the last EXIT; what follows are rare cases, such as a divergent shuffle."""
        exits = (i for i, each in enumerate(self.code) if each.opcode.startswith("EXIT"))
        return max(exits, default=len(self.code) - 1) + 1

    def loops(self) -> Iterator[Loop]:
        """All backward branches, in the order of the code."""
        for last, each in enumerate(self.code[: self.end]):
            first = self.labels.get(each.target, last)
            if first < last:
                yield Loop(first, last, each.places)


def read_sass(text: str) -> list[Kernel]:
    """The kernels in the output of `nvdisasm -c -gi`."""
    kernels: list[Kernel] = []
    places: list[Place] = []
    fresh = True  # the next place belongs to a new instruction
    for line in text.splitlines():
        if match := _SECTION.match(line):
            kernels.append(Kernel(match[1]))
        elif not kernels:
            continue
        elif match := _SOURCE.search(line):
            places = [] if fresh else places
            places.append((Path(match[1]).name, int(match[2])))
            fresh = False
        elif match := _LABEL.match(line):
            kernels[-1].labels[match[1]] = len(kernels[-1].code)
        elif match := _INSTRUCTION.match(line):
            target = _TARGET.search(match["operands"]) if match["opcode"] == "BRA" else None
            kernels[-1].code.append(
                Instruction(
                    match["opcode"],
                    target[0] if target else "",
                    tuple(places),
                )
            )
            fresh = True
    return kernels
