"""Laws of the operator's contract: the C and C++ sources agree with the Python constants."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bsmamba2 import plugins
from bsmamba2.formats.operator import (
    DOMAIN,
    INPUTS,
    NAME,
    OP_TYPE,
    PLUGIN_NAMESPACE,
    PLUGIN_VERSION,
    VERSION,
)

SOURCES = Path(plugins.__path__[0])


def strings_of(path: str, pattern: str) -> tuple[str, ...]:
    """The string literals that follow a pattern in a source, up to the semicolon."""
    (statement,) = re.findall(rf"{pattern}[^;]*;", (SOURCES / path).read_text())
    return tuple(re.findall(r'"([^"]*)"', statement))


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("tensorrt/operands.h", r"\bkName = ", (OP_TYPE,)),
        ("tensorrt/operands.h", r"\bkVersion = ", (PLUGIN_VERSION,)),
        ("tensorrt/operands.h", r"\bkNamespace = ", (PLUGIN_NAMESPACE,)),
        ("tensorrt/operands.cpp", r"\bkNames\[\w+\] = ", INPUTS),
        ("cpu/onnxruntime_op.cpp", r"\bop\.name = ", (OP_TYPE,)),
        ("cpu/onnxruntime_op.cpp", r"\bcreate_domain\(", (DOMAIN,)),
        ("cpu/onnxruntime_op.cpp", r"\bkNames\[\w+\] = ", INPUTS),
    ],
)
def test_constants_are_the_contracts(path: str, pattern: str, expected: tuple[str, ...]):
    assert strings_of(path, pattern) == expected


@pytest.mark.parametrize("header", ["bsm_scan.h", "bsm_scan_cpu.h"])
def test_headers_take_the_contracts_inputs_in_order(header: str):
    text = (SOURCES / "include" / header).read_text()
    assert text.startswith(f"/* {NAME}, version {VERSION}, as a C library")
    pointers = re.findall(r"^ +(?:const )?(?:void|float)\* ?(\w+);", text, re.MULTILINE)
    assert tuple(pointers[: len(INPUTS) + 1]) == (*INPUTS, "y")
