"""Laws of the binding: what it hands to the library, and what it says when that refuses."""

from __future__ import annotations

import ctypes
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import printed

from bsmamba2.errors import PluginError
from bsmamba2.formats.operator import INPUTS
from bsmamba2.plugins import library as binding
from bsmamba2.plugins.library import DTYPES, ScanArrays, ScanError, ScanLibrary, ScanSizes, Status

HEADER = Path(__file__).parents[2] / "plugins" / "include" / "bsm_scan.h"
SIZES = ScanSizes(n_sequences=1, length=2, n_heads=2, headdim=32, d_state=32)


@pytest.fixture(scope="module")
def library(emulated_scan: Path) -> ScanLibrary:
    return ScanLibrary(emulated_scan)


class Call:
    """Arrays of ones in host memory, and their addresses."""

    def __init__(self, sizes: ScanSizes, needed: int) -> None:
        inner, heads = sizes.n_heads * sizes.headdim, sizes.n_heads
        d_xbc = inner + 2 * sizes.d_state
        steps = sizes.n_sequences * sizes.length
        counts = {
            "zxbcdt": 2 * steps * (inner + d_xbc + heads),
            "conv_weight": 2 * d_xbc * 4,
            "conv_bias": 2 * d_xbc,
            "dt_bias": 2 * heads,
            "A": 2 * heads,
            "D": 2 * heads,
            "y": 2 * steps * inner,
        }
        self._memory = {name: aligned(count, 0.5) for name, count in counts.items()}
        self._memory["A"] *= -1
        self._memory["y"][:] = np.nan
        self._workspace = aligned(needed // 4 + 1, 0)
        self.arrays = ScanArrays(**{n: a.ctypes.data for n, a in self._memory.items()})
        self.workspace = {
            "workspace": self._workspace.ctypes.data,
            "workspace_bytes": needed,
        }

    @property
    def y(self) -> np.ndarray:
        return self._memory["y"]


def aligned(count: int, value: float) -> np.ndarray:
    """Float32 from a multiple of 64 bytes on."""
    memory = np.full(count + 16, value, np.float32)
    start = -memory.ctypes.data % 64 // 4
    return memory[start : start + count]


# --- the header ---


def header_enum(name: str, prefix: str) -> dict[str, int]:
    text = HEADER.read_text()
    body = re.sub(
        r"/\*.*?\*/", "", re.search(rf"enum {name} {{(.*?)}};", text, re.S)[1], flags=re.S
    )
    numbers, number = {}, 0
    for entry in filter(None, map(str.strip, body.split(","))):
        key, _, value = (part.strip() for part in entry.partition("="))
        number = int(value) if value else number
        numbers[key.removeprefix(prefix)] = number
        number += 1
    return numbers


def test_status_numbers_are_the_headers():
    numbers = header_enum("BsmStatus", "BSM_")
    assert numbers.pop("STATUS_COUNT") == len(Status)
    assert numbers == {status.name: status.value for status in Status}


def test_types_are_the_headers():
    assert {name.lower(): n for name, n in header_enum("BsmDtype", "BSM_").items()} == DTYPES


def test_version_is_the_headers():
    assert f"#define BSM_SCAN_ABI {binding.ABI}\n" in HEADER.read_text()


def test_structure_is_the_headers(tmp_path: Path):
    """Offsets as the C compiler lays them out."""
    fields = [name for name, _ in binding._BsmScan._fields_]
    lines = "".join(f'printf("%zu ", offsetof(BsmScan, {name}));' for name in fields)
    (tmp_path / "a.c").write_text(
        "#include <stdio.h>\n#include <stddef.h>\n#include <bsm_scan.h>\n"
        f'int main(void) {{ {lines} printf("%zu", sizeof(BsmScan)); }}'
    )
    program = tmp_path / "a"
    subprocess.run(["g++", f"-I{HEADER.parent}", "a.c", "-o", program], check=True, cwd=tmp_path)
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    offsets = [getattr(binding._BsmScan, name).offset for name in fields]
    assert [int(n) for n in printed.split()] == [*offsets, ctypes.sizeof(binding._BsmScan)]


def test_binding_imports_neither_torch_nor_numpy():
    code = (
        "import sys, bsmamba2.plugins.library;"
        "print({'torch', 'numpy', 'cupy', 'yaml'} & set(sys.modules))"
    )
    assert printed(code) == "set()\n"


# --- calls ---


def test_every_element_of_the_output_is_written(library: ScanLibrary):
    call = Call(SIZES, library.workspace_bytes(SIZES))
    library.enqueue(SIZES, call.arrays, **call.workspace)
    assert np.isfinite(call.y).all()
    assert call.y.any()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"n_sequences": 0}, Status.BAD_SHAPE),
        ({"n_sequences": -1}, Status.BAD_SHAPE),
        ({"n_sequences": 1 << 62}, Status.BAD_SHAPE),
        ({"length": 0}, Status.BAD_SHAPE),
        ({"n_heads": 0}, Status.BAD_N_HEADS),
        ({"n_heads": 65}, Status.BAD_N_HEADS),
        ({"headdim": 16}, Status.BAD_HEADDIM),
        ({"d_state": 48}, Status.BAD_D_STATE),
        ({"d_conv": 3}, Status.BAD_D_CONV),
        ({"eps": -1.0}, Status.BAD_EPS),
        ({"eps": float("nan")}, Status.BAD_EPS),
        ({"eps": 1e300}, Status.BAD_EPS),
        ({"dtype": "float64"}, Status.BAD_DTYPE),
    ],
)
def test_refused_sizes_name_the_value(library: ScanLibrary, change: dict[str, Any], status: Status):
    sizes, call = replace(SIZES, **change), Call(SIZES, 0)
    (value,) = change.values()
    for refused in (
        lambda: library.workspace_bytes(sizes),
        lambda: library.enqueue(sizes, call.arrays, **call.workspace),
    ):
        with pytest.raises(ScanError, match=r"\AScan: [^\n]+\.\Z") as error:
            refused()
        assert error.value.status == status
        assert str(value) in str(error.value)
    assert np.isnan(call.y).all()


@pytest.mark.parametrize("name", [*INPUTS, "y"])
def test_missing_arrays_are_named(library: ScanLibrary, name: str):
    call = Call(SIZES, library.workspace_bytes(SIZES))
    with pytest.raises(ScanError, match=rf"\b{name} at 0x0\b") as error:
        library.enqueue(SIZES, replace(call.arrays, **{name: 0}), **call.workspace)
    assert error.value.status == Status.NULL_POINTER
    assert not error.value.is_unsupported


def test_misaligned_output_is_named_with_its_address(library: ScanLibrary):
    call = Call(SIZES, library.workspace_bytes(SIZES))
    address = call.arrays.y + 4
    with pytest.raises(ScanError, match=f"y at {address:#x}") as error:
        library.enqueue(SIZES, replace(call.arrays, y=address), **call.workspace)
    assert error.value.status == Status.MISALIGNED


def test_small_workspace_is_refused(library: ScanLibrary):
    needed = library.workspace_bytes(SIZES)
    call = Call(SIZES, needed)
    short = call.workspace | {"workspace_bytes": needed - 1}
    with pytest.raises(ScanError, match=f"workspace_bytes {needed - 1}") as error:
        library.enqueue(SIZES, call.arrays, **short)
    assert error.value.status == Status.SMALL_WORKSPACE


# --- files that are no library ---


def test_an_absent_library_names_the_command(tmp_path: Path):
    with pytest.raises(PluginError, match=r"absent\.so; run 'bsm plugin build'\.$"):
        ScanLibrary(tmp_path / "absent.so")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (None, "is no scan library that loads here"),
        ("int other(void) { return 0; }", "is no scan library that loads here"),
        ("int bsm_scan_abi(void) { return 99; }", r"version 99 .* version 1; run 'bsm plugin"),
    ],
)
def test_another_library_is_refused(tmp_path: Path, source: str | None, sentence: str):
    path = tmp_path / "a.so"
    path.write_text("no library")
    if source:
        (tmp_path / "a.c").write_text(source)
        command = ["g++", "-shared", "-fPIC", "-x", "c", tmp_path / "a.c", "-o", path]
        subprocess.run(command, check=True)
    with pytest.raises(PluginError, match=rf"^{re.escape(str(path))} .*{sentence}"):
        ScanLibrary(path)
