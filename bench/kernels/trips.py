"""How often a warp runs each instruction, derived from the instruction's source lines.

A loop is a backward branch; its trip count comes from the line of its `for`, as a block's average
where threads share the work. A line under an `if` that `conditions` lists counts by how often that
is true. Other lines count as always run, unknown loops as one iteration, with a note: counts are
accurate to a few percent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.kernels.sass import Instruction, Kernel, Loop, Place

_FOR = re.compile(
    r"for \([^;]*; (?:\w+) < (?P<bound>[^;]+); (?:\+\+\w+|\w+ \+= (?P<step>[^)]+(?:\([^)]*\))?))\)"
)
_IF = re.compile(r"if \((.*?)\)(?: \{| \w.*;|)$")
_LEAVES = re.compile(r"(?:continue|return);$")
_ONE_A_TURN = {"load_peer(": "cluster load", "memory.totals(i)[step]": "shared load"}
"""Part of a loop's `for` -> an instruction that each iteration has once, to see the unrolling."""
_PARTS = re.compile(r"convolve<S>\(params, (?:at\.)?chunk, (x?(?:BC)?),")
"""The parts that a call of the convolution computes."""
_PREFETCHED = re.compile(r"\bprefetch<([^<>]+)>\(")
"""How many columns a call prefetches."""


class Source:
    """The kernels' source, by place."""

    def __init__(self, folder: Path) -> None:
        """Reads the files of a folder."""
        paths = (*folder.glob("*.cuh"), *folder.glob("*.cu"))
        self._lines = {path.name: path.read_text("utf-8").splitlines() for path in paths}

    def line(self, place: Place) -> str:
        """Returns a line without indentation and comment; "" for files that are not kernels."""
        name, number = place
        lines = self._lines.get(name, ())
        return _stripped(lines[number - 1]) if number <= len(lines) else ""

    def statement(self, place: Place) -> str:
        """Returns the statement that begins in a line, joined into one line."""
        name, number = place
        text = self.line(place)
        while text and text.count("(") > text.count(")"):
            number += 1
            more = self.line((name, number))
            if not more:
                break
            text = f"{text} {more}"
        return text

    def shares(self, conditions: Mapping[str, float]) -> dict[Place, float]:
        """Returns how often each line under one of the conditions runs, for these lines only."""
        shares: dict[Place, float] = {}
        for name, lines in self._lines.items():
            for number, line in enumerate(lines, 1):
                match = _IF.match(_stripped(line).removeprefix("} else "))
                if not match or match[1] not in conditions:
                    continue
                for scope, share in _scopes(lines, number, conditions[match[1]]):
                    for each in scope:
                        shares[name, each] = shares.get((name, each), 1.0) * share
        return shares


def _stripped(line: str) -> str:
    return line.split("//")[0].strip()


def _scopes(lines: list[str], number: int, share: float) -> Iterator[tuple[range, float]]:
    """Yields the lines that the `if` at `number` controls, with how often they run."""
    text = _stripped(lines[number - 1])
    if _LEAVES.search(text):
        yield range(number + 1, _block_end(lines, number, depth=1)), 1 - share
    elif text.endswith("{"):
        end = _block_end(lines, number + 1, depth=1)
        yield range(number + 1, end), share
        if _stripped(lines[end - 1]) == "} else {":
            yield range(end + 1, _block_end(lines, end + 1, depth=1)), 1 - share
    elif text.endswith(";"):
        yield range(number, number + 1), share
    else:  # the statement below
        end = number + 1
        while not _stripped(lines[end - 1]).endswith(";"):
            end += 1
        yield range(number + 1, end + 1), share


def _block_end(lines: list[str], number: int, depth: int) -> int:
    """Returns the line, from `number` on, that closes `depth` braces."""
    for at in range(number, len(lines) + 1):
        text = _stripped(lines[at - 1])
        for character in text:
            depth += (character == "{") - (character == "}")
            if depth == 0:
                return at
    raise AssertionError("braces do not match")


def conditions(shape: Mapping[str, Any], chunks: int) -> dict[str, float]:
    """Returns how often each `if` of the source is true in an aligned scan of whole groups.

    Args:
        shape: What probe.cu prints.
        chunks: Chunks of a sequence.
    """
    tiles = shape["row_tiles"]
    above_diagonal = (tiles - 1) / (2 * tiles)
    return {
        "params.aligned": 1.0,
        "peers > 1": _given_share(shape, chunks),
        "params.squares": float(shape["two_steps"]),
        "params.cluster > 1": float(shape["cluster"] > 1),
        "start": (chunks - 1) / chunks,
        "j > tile": above_diagonal,
        "j > 2 * tile + 1": above_diagonal,
        "scores.has_head(warp, head)": 1 / shape["sharing"],
        "aligned && chunk.has(row) && chunk.has(row + kRows - 1)": 1.0,  # all but the edges
        "head < S::kHeads": min(1.0, shape["heads"] / shape["warps"]),
    }


class Counts:
    """How often a warp of a kernel runs each of its instructions."""

    def __init__(
        self, kernel: Kernel, source: Source, shape: Mapping[str, Any], *, steps: int
    ) -> None:
        """Follows loops and conditions.

        Args:
            kernel: Its code.
            source: The files that it was compiled from.
            shape: What probe.cu prints.
            steps: Steps of a sequence.
        """
        self.unknown: list[str] = []
        """Loops whose trip count is unknown."""
        self._source, self._shape = source, shape
        chunks = -(-steps // shape["chunk"])
        self._names = _names(shape, chunks * shape["chunk"])
        shares = source.shares(conditions(shape, chunks))
        self.weights = [_product(shares, each) for each in kernel.code]
        self.weights[kernel.end :] = [0.0] * (len(kernel.code) - kernel.end)
        for loop, turns in self._turns(kernel):
            for i in range(loop.first, loop.last + 1):
                self.weights[i] *= turns

    def _turns(self, kernel: Kernel) -> Iterator[tuple[Loop, float]]:
        copies: dict[tuple[Place, ...], list[Loop]] = {}
        for loop in kernel.loops():
            copies.setdefault(loop.places, []).append(loop)
        for places, loops in copies.items():
            turns = self._evaluate(places)
            largest = max(loops, key=lambda loop: loop.last - loop.first)
            for loop in loops:  # the largest is the unrolled body; the others are its remainders
                yield loop, turns / self._unrolled(kernel, loop) if loop is largest else 0.0

    def _unrolled(self, kernel: Kernel, loop: Loop) -> int:
        """Iterations that the compiler unrolled into one."""
        text = self._source.statement(loop.places[0]) if loop.places else ""
        kind = next((kind for part, kind in _ONE_A_TURN.items() if part in text), "")
        kinds = [each.kind for each in kernel.code[loop.first : loop.last + 1]]
        return max(1, kinds.count(kind))

    def _evaluate(self, places: tuple[Place, ...]) -> float:
        """Trip count of the loop whose `for` is at the first place, called from the others."""
        text = self._source.statement(places[0]) if places else ""
        match = _FOR.search(text)
        callers = " ".join(self._source.statement(place) for place in places[1:])
        parts = _PARTS.search(callers)
        names = self._names | _convolved(self._shape, parts[1] if parts else "")
        if columns := _PREFETCHED.search(callers):
            names["kLines"] = _lines(int(_value(columns[1], names)), self._shape["item_bytes"])
        try:
            bound = _value(match["bound"], names) if match else 0.0
            step = _value(match["step"] or "1", names) if match else 1.0
        except (NameError, SyntaxError):
            match = None
        if not match:
            self.unknown.append(text or "a loop without a source line")
            return 1.0
        return bound / step


def _lines(columns: int, item_bytes: int) -> int:
    """Cache lines of 128 bytes that `prefetch` requests for a row."""
    return (columns - 1) * item_bytes // 128 + 2 if columns > 1 else 1


def _given_share(shape: Mapping[str, Any], chunks: int) -> float:
    """Share of the units stored by the convolution that are B and C, shared within a cluster."""
    if chunks == 1 or shape["cluster"] == 1:
        return 0.0
    return 2 * shape["d_state"] / (2 * shape["d_state"] + shape["channels"])


def _convolved(shape: Mapping[str, Any], parts: str) -> dict[str, float]:
    """Loop bounds in `convolve`: items of the block, and on average the blocks that get one."""
    turns = shape["chunk"] // shape["conv_steps"]
    x, state = (shape[name] * shape["item_bytes"] // 16 * turns for name in ("channels", "d_state"))
    cluster = shape["cluster"] if parts == "xBC" else 1
    own, given = x * ("x" in parts), 2 * state * ("BC" in parts)
    items = own + given / cluster
    return {"items": items, "peers": (own + given) / items if items else 1.0}


def _names(shape: Mapping[str, Any], padded_steps: int) -> dict[str, float]:
    """Values of the names in loop bounds."""
    units = shape["channels"] * shape["item_bytes"] // 16
    return {
        "kChunk": shape["chunk"],
        "kThreads": shape["threads"],
        "kDState": shape["d_state"],
        "kDepth": shape["depth"],
        "kSteps": shape["conv_steps"],
        "kHeads": shape["heads"],
        "kWarps": shape["warps"],
        "kRowTiles": shape["row_tiles"],
        "kPerUnit": 16 // shape["item_bytes"],
        "kUnits": units,
        "kStep": shape["threads"] // units,
        "kChannels": shape["channels"],
        "length": padded_steps,
        "rows": shape["chunk"],
        "cluster": shape["cluster"],
        "groups": shape["groups_per_block"],
    }


def _value(expression: str, names: Mapping[str, float]) -> float:
    """Evaluates an expression of the source.

    Raises:
        NameError, SyntaxError: The expression has other names or operators.
    """
    plain = re.sub(r"\w+(?:::|\.)(?=\w)|<T>|static_cast<\w+>|\bunsigned(?=\()", "", expression)
    if not re.fullmatch(r"[\w\s*/+()-]+", plain):
        raise SyntaxError(expression)
    return float(eval(plain, {"__builtins__": {}}, dict(names)))


def _product(shares: Mapping[Place, float], instruction: Instruction) -> float:
    product = 1.0
    for place in instruction.places:
        product *= shares.get(place, 1.0)
    return product
