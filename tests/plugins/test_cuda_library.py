"""Laws of the binding: what it passes to the library, and its errors when the library refuses."""

from __future__ import annotations

import ctypes
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from processes import printed

from bsmamba2.errors import PluginError
from bsmamba2.formats.operator import INPUTS
from bsmamba2.plugins import cuda_library as binding
from bsmamba2.plugins.cuda_library import (
    DTYPES,
    ScanArrays,
    ScanError,
    ScanLibrary,
    ScanSizes,
    Status,
)

HEADER = Path(__file__).parents[2] / "plugins" / "include" / "bsm_scan.h"
SIZES = ScanSizes(n_sequences=1, length=2, n_heads=2, headdim=32, d_state=32)
ARRAYS = ScanArrays(**dict.fromkeys((*INPUTS, "y"), 4096))
"""Addresses that nothing may read or write: the library refuses each call before. Results are
tested in `test_scan_kernels`."""


@pytest.fixture(scope="module")
def library(emulated_scan: Path) -> ScanLibrary:
    return ScanLibrary(emulated_scan)


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
        "import sys, bsmamba2.plugins.cuda_library;"
        "print({'torch', 'numpy', 'cupy', 'yaml'} & set(sys.modules))"
    )
    assert printed(code) == "set()\n"


# --- calls ---


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
    sizes = replace(SIZES, **change)
    (value,) = change.values()
    for refused in (
        lambda: library.workspace_bytes(sizes),
        lambda: library.enqueue(sizes, ARRAYS, workspace=4096, workspace_bytes=1 << 30),
    ):
        with pytest.raises(ScanError, match=r"\AScan: [^\n]+\.\Z") as error:
            refused()
        assert error.value.status == status
        assert str(value) in str(error.value)


@pytest.mark.parametrize(
    ("name", "address", "status"),
    [
        *((name, 0, Status.NULL_POINTER) for name in vars(ARRAYS)),
        ("y", 4100, Status.MISALIGNED),
    ],
)
def test_arrays_that_are_missing_or_misaligned_are_named(
    library: ScanLibrary, name: str, address: int, status: Status
):
    arrays = replace(ARRAYS, **{name: address})
    with pytest.raises(ScanError, match=rf"\b{name} at {address:#x}\b") as error:
        library.enqueue(SIZES, arrays, workspace=4096, workspace_bytes=1 << 30)
    assert error.value.status == status
    assert not error.value.is_unsupported


def test_small_workspace_is_refused(library: ScanLibrary):
    short = library.workspace_bytes(SIZES) - 1
    with pytest.raises(ScanError, match=f"workspace_bytes {short}") as error:
        library.enqueue(SIZES, ARRAYS, workspace=4096, workspace_bytes=short)
    assert error.value.status == Status.SMALL_WORKSPACE


# --- files that are no library ---


def test_an_absent_library_names_the_command(tmp_path: Path):
    with pytest.raises(PluginError, match=r"absent\.so; run 'bsm plugin build'\.$"):
        ScanLibrary(tmp_path / "absent.so")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (None, "cannot be loaded as a scan library"),
        ("int other(void) { return 0; }", "cannot be loaded as a scan library"),
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
