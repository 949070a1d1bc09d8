"""Damage to files and to plain values; every choice comes from the given `Random`."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

_HEADER = 128  # bytes at the start, which matter most
HOSTILE_TEXTS = (
    "",
    ".",
    "..",
    "../../x",
    "/tmp/../x",
    "a\0b",
    "a\nb",
    "x" * 300,
    "x" * 20_000,
    "{track}",
    "%s%n",
    "\ud800",
    "CON",
    "-rf",
    "instrumental",
    "é\u202e.wav",
)
_NUMBERS = (
    *(0, -1, 1, 2, 3, 255, 65_536, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 63, 1 << 80, 10**5000),
    *(0.5, -0.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan")),
)


def nested(depth: int) -> list[Any]:
    """Lists nested `depth` times."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def hostile_value(random: Random) -> Any:
    """A plain value that hardly any reader will expect."""
    simple = (None, True, False, [], {}, [[]], {"": {}}, [None] * 5, {"x": [1, "a"]})
    match random.randrange(8):
        case 0:
            return copy.deepcopy(random.choice(simple))
        case 1:
            return random.choice(HOSTILE_TEXTS)
        case 2:
            return nested(random.choice((10, 900, 5_000)))
        case 3:
            return [random.choice(_NUMBERS) for _ in range(random.randrange(4))]
        case _:
            return random.choice(_NUMBERS)


def mutate_value(random: Random, value: Any, times: int = 1) -> Any:
    """A copy of lists and dicts with some entries replaced, removed, duplicated or renamed."""
    value = copy.deepcopy(value)
    for _ in range(times):
        holder, key = _place(random, value)
        if holder is None:
            return hostile_value(random)
        match random.randrange(6):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[random.choice((*HOSTILE_TEXTS, f"{key}s"))] = holder.pop(key)
            case 1:
                holder.insert(key, copy.deepcopy(holder[key]))
            case 2 if type(holder[key]) in (int, float):
                holder[key] *= random.choice((-1, 2, 3, 10, 1 << 16, 1 << 40))
            case _:
                holder[key] = hostile_value(random)
    return value


def _place(random: Random, value: Any) -> tuple[Any, Any]:
    """A container within `value` and one of its keys; (None, None) if there is none."""
    places: list[tuple[Any, Any]] = []
    waiting = [value] if isinstance(value, (dict, list)) else []
    while waiting and len(places) < 5000:
        holder = waiting.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder)
        for key, entry in items:
            places.append((holder, key))
            if isinstance(entry, (dict, list)):
                waiting.append(entry)
    return random.choice(places) if places else (None, None)


def mutate_bytes(random: Random, data: bytes) -> bytes:
    """Damages bytes in one to 40 places."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 8, 40))):
        data = _damaged(random, data)
    return data


def _damaged(random: Random, data: bytes) -> bytes:
    """Replaces, removes, repeats, swaps or inserts some of the bytes."""
    end = len(data) if random.random() < 0.5 else min(_HEADER, len(data))
    at, size = random.randrange(max(1, end)), random.choice((1, 3, 4, 37, 200, 5000))
    old, gone = data[at : at + size], size
    match random.randrange(12):
        case 0 | 1:
            new, gone = bytes(byte ^ 1 << random.randrange(8) for byte in old[:1]), 1
        case 2 | 3 | 4:
            new = _number(random, len(data), len(data) - at)
            gone = len(new)
        case 5:
            new = random.randbytes(len(old))
        case 6:
            new, gone = random.randbytes(size), 0
        case 7:
            new = b""
        case 8:
            new = old * random.choice((2, 3, 20))
        case 9:
            return data[:at]
        case 10:
            new = bytes(len(old))
        case _:
            other = random.randrange(at, max(at + 1, len(data)))
            new, gone = (
                data[other : other + size] + data[at + size : other] + old,
                other + size - at,
            )
    return data[:at] + new + data[at + gone :]


def _number(random: Random, *lengths: int) -> bytes:
    """An integer at or near a limit."""
    size = random.choice((1, 2, 3, 4, 8))
    most = (1 << 8 * size) - 1
    near = (0, 1, 2, 0x7F, 0xFF, 1000, *lengths, most >> 1, (most >> 1) + 1, most - 1, most)
    return min(most, random.choice(near)).to_bytes(size, random.choice(("little", "big")))
