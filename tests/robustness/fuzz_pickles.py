"""Hostile files of `torch.save`: pickles that call functions, expand or lie, in a zip archive."""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
from collections.abc import Callable
from random import Random

from fuzz_bytes import mutate_bytes

SENTINEL = "called"
"""Name of the file that a pickle's call makes in the case's folder."""
_CALLS = (
    ("os", "system", f"touch {SENTINEL}"),
    ("posix", "system", f"touch {SENTINEL}"),
    ("builtins", "eval", f"open('{SENTINEL}', 'w')"),
    ("builtins", "exec", f"open('{SENTINEL}', 'w')"),
    ("__builtin__", "eval", f"open('{SENTINEL}', 'w')"),
    ("subprocess", "getoutput", f"touch {SENTINEL}"),
    ("runpy", "run_path", "in/program.py"),
    ("importlib", "import_module", "antigravity"),
    ("torch", "load", "in/other.ckpt"),
    ("numpy", "load", "in/other.npy"),
    ("bsmamba2.cli", "main", "info"),
    ("os.path.os", "system", f"touch {SENTINEL}"),
    ("io", "open", SENTINEL),
    ("pathlib", "Path.touch", SENTINEL),
)


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _call(random: Random, _program: bytes) -> bytes:
    """A function call in one of the ways that a pickle can make one."""
    module, name, argument = random.choice(_CALLS)
    pair, text = f"{module}\n{name}\n".encode(), _text(argument)
    found = b"\x80\x04" + _text(module) + _text(name) + b"\x93"
    ways = (
        *(
            b"c" + pair + text + b"\x85R.",
            b"(" + text + b"i" + pair + b".",
            found + text + b"\x85R.",
        ),
        *(b"(c" + pair + text + b"o.", b"\x80\x02c" + pair + text + b"\x85\x81.", found + b"."),
        *(b"\x80\x04c" + pair + text + b"\x85}\x92.", b"}" + _text("state_dict") + found + b"s."),
    )
    return random.choice(ways)


def _spliced(random: Random, program: bytes) -> bytes:
    """A function call in the middle of an honest pickle."""
    call = _call(random, program)[:-1]
    starts = [at for _, _, at in pickletools.genops(program) if at]
    at = random.choice(starts)
    return program[:at] + call + b"0" + program[at:]


def _doubling(random: Random, _program: bytes) -> bytes:
    """Nested pairs of one object: a few hundred bytes that stand for 2^n entries."""
    depth = random.choice((10, 40, 1000))
    make = random.choice((b"2\x86", b"(lp0\n(g0\ng0\ne2\x86"))
    return b"]" + make * depth + b"."


def _deep(random: Random, _program: bytes) -> bytes:
    """Deeply nested lists, tuples or dicts."""
    depth = random.choice((100, 2_000, 50_000))
    open_, close = random.choice(((b"](", b"e"), (b"", b"\x85"), (b"}(K\x00", b"u")))
    return b"\x80\x02" + open_ * depth + b"]" + close * depth + b"."


def _long(random: Random, _program: bytes) -> bytes:
    """Numbers and texts that are long, or claim to be."""
    size = random.choice((0, 255, 1 << 20, (1 << 31) - 1))
    number = b"\x8b" + struct.pack("<i", size) + b"\x7f" * min(size, 1 << 20)
    text = b"X" + struct.pack("<I", size) + b"a" * min(size, 1 << 20)
    wide = random.choice((b"\x8d", b"\x8e", b"\x96")) + struct.pack("<Q", 1 << 62) + b"a"
    entry = random.choice((number, text, wide, b"I" + b"9" * 10_000 + b"\n", b"F1e999\n"))
    return random.choice((b"\x80\x05}" + entry + b"Ns.", b"\x80\x05" + entry + b".", entry))


def _opcodes(random: Random, _program: bytes) -> bytes:
    """Random opcodes with mostly valid arguments."""
    codes = [op.code.encode("latin-1") for op in pickletools.opcodes]
    parts = []
    for _ in range(random.choice((5, 30, 300))):
        code = random.choice(codes)
        parts.append(code + random.choice((b"", b"", b"1\n", b"\x01", b"a\nb\n", b"\0\0\0\1a")))
    return b"\x80\x02" + b"".join(parts) + b"."


def _sizes(random: Random, program: bytes) -> bytes:
    """Other numbers in place of shapes, strides, offsets and counts."""
    numbers = [
        (at, op.name) for op, _, at in pickletools.genops(program) if op.name.startswith("BININT")
    ]
    for at, name in random.sample(numbers, min(len(numbers), random.choice((1, 2, 9)))):
        size = {"BININT": 4, "BININT1": 1, "BININT2": 2}[name]
        value = random.choice((0, 1, 0x7F, (1 << 8 * size) - 1, random.randrange(1 << 8 * size)))
        program = program[: at + 1] + value.to_bytes(size, "little") + program[at + 1 + size :]
    return program


PROGRAMS: tuple[Callable[[Random, bytes], bytes], ...] = (
    *(_call, _spliced, _spliced, _doubling, _deep, _long, _opcodes, _sizes, _sizes),
    *(mutate_bytes, mutate_bytes),
)
"""Each makes a hostile pickle, from an honest one or from scratch."""


def repacked(random: Random, archive: bytes) -> bytes:
    """A zip archive of PyTorch with another pickle, or with entries that should not be there."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    pickled = next(name for name in entries if name.endswith("data.pkl"))
    compression = zipfile.ZIP_STORED
    match random.randrange(10):
        case 0:
            compression = zipfile.ZIP_DEFLATED
        case 1:  # a bomb: 64 MiB of zeros in 64 kB
            name = random.choice(list(entries))
            entries[name], compression = bytes(1 << 26), zipfile.ZIP_DEFLATED
        case 2:
            del entries[random.choice(list(entries))]
        case 3:
            entries[random.choice(list(entries))] = random.randbytes(random.choice((0, 3, 1000)))
        case 4:
            entries[f"../../{random.choice(list(entries))}"] = b"x"
        case 5:
            root = pickled.removesuffix("data.pkl")
            extra = random.choice((f"{root}constants.pkl", "other/data.pkl", f"{root}byteorder"))
            entries[extra] = b"big"
        case _:
            entries[pickled] = random.choice(PROGRAMS)(random, entries[pickled])
    with io.BytesIO() as made:
        with zipfile.ZipFile(made, "w", compression) as file:
            for name, data in entries.items():
                file.writestr(name, data)
        return _lying(random, made.getvalue())


def _lying(random: Random, archive: bytes) -> bytes:
    """The archive, now and then with wrong sizes or places in its directory."""
    if random.random() > 0.2:
        return archive
    entry = archive.rfind(b"PK\x01\x02")
    field = random.choice((10, 20, 24, 28, 42))  # method, sizes, name's length, offset
    value = random.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF))
    at = entry + field
    return archive[:at] + value.to_bytes(4, "little") + archive[at + 4 :]
