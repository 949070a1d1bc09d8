"""Damage done to files and to plain values; every choice comes from the `Random` it is given."""

from __future__ import annotations

import copy
from collections.abc import Callable
from random import Random
from typing import Any

_SIZES = (1, 2, 3, 4, 8)
_HEADER = 128  # bytes at the start, where most of what decides lies
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
    """A list in a list in a list."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def hostile_value(random: Random) -> Any:
    """A plain value that hardly any reader expects."""
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
    """A copy of lists and dicts in which some entries are others, gone, doubled or renamed."""
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
    """A container within `value` and a key of it; (None, None) where there is none."""
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


def mutate_bytes(random: Random, data: bytes, times: int | None = None) -> bytes:
    """Bytes with one to some dozen places damaged, or as many as `times`."""
    if times is None:
        times = random.choice((1, 1, 1, 2, 3, 8, 40))
    for _ in range(times):
        data = random.choice(_DAMAGES)(random, data)
    return data


def _at(random: Random, data: bytes) -> int:
    end = len(data) if random.random() < 0.5 else min(_HEADER, len(data))
    return random.randrange(end) if end else 0


def _flip(random: Random, data: bytes) -> bytes:
    at = _at(random, data)
    return (
        data[:at] + bytes(b ^ 1 << random.randrange(8) for b in data[at : at + 1]) + data[at + 1 :]
    )


def _number(random: Random, data: bytes) -> bytes:
    """An integer that is the smallest, the largest, or near a border."""
    at, size = _at(random, data), random.choice(_SIZES)
    most = (1 << 8 * size) - 1
    near = (
        0,
        1,
        2,
        0x7F,
        0xFF,
        1000,
        len(data),
        len(data) - at,
        most >> 1,
        (most >> 1) + 1,
        most - 1,
    )
    value = min(most, max(0, random.choice((*near, most))))
    order = random.choice(("little", "big"))
    return data[:at] + value.to_bytes(size, order) + data[at + size :]


def _noise(random: Random, data: bytes) -> bytes:
    at = _at(random, data)
    noise = random.randbytes(random.choice((1, 4, 64)))
    return data[:at] + noise + data[at + len(noise) :]


def _insert(random: Random, data: bytes) -> bytes:
    at = _at(random, data)
    return data[:at] + random.randbytes(random.choice((1, 3, 16, 500))) + data[at:]


def _delete(random: Random, data: bytes) -> bytes:
    at = _at(random, data)
    return data[:at] + data[at + random.choice((1, 2, 4, 37, 1000)) :]


def _double(random: Random, data: bytes) -> bytes:
    at = _at(random, data)
    part = data[at : at + random.choice((1, 8, 200, 5000))]
    return data[:at] + part * random.choice((2, 3, 20)) + data[at + len(part) :]


def _truncate(random: Random, data: bytes) -> bytes:
    return data[: _at(random, data)]


def _zeros(random: Random, data: bytes) -> bytes:
    at, size = _at(random, data), random.choice((4, 100, 5000))
    return data[:at] + bytes(min(size, len(data) - at)) + data[at + size :]


def _swap(random: Random, data: bytes) -> bytes:
    one, other = sorted((_at(random, data), _at(random, data)))
    size = min(random.choice((4, 64, 1000)), other - one, len(data) - other)
    first, second = data[one : one + size], data[other : other + size]
    return data[:one] + second + data[one + size : other] + first + data[other + size :]


_DAMAGES: tuple[Callable[[Random, bytes], bytes], ...] = (
    *(_flip, _flip, _number, _number, _number, _noise, _insert),
    *(_delete, _double, _truncate, _zeros, _swap),
)
