"""Laws of a plan's sidecar: it is read as it was written, or the error is one sentence."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import plans
import pytest
from processes import printed
from small_engines import small_metadata

from bsmamba2.errors import BsmError, CheckpointError, EngineError
from bsmamba2.formats.trt_plan import (
    BUILDERS,
    TITLES,
    PlanRecord,
    carries_library,
    read_plan,
    read_sidecar,
    sidecar_metadata,
    sidecar_path,
    sidecar_text,
)

BYTES = b"a plan"
RECORD = replace(plans.RECORD, plan_sha256=sha256(BYTES).hexdigest())
METADATA = small_metadata()


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "model.plan"
    path.write_bytes(BYTES)
    sidecar_path(path).write_text(sidecar_text(RECORD, METADATA), "utf-8")
    return path


def change(plan: Path, change: Callable[[Any], Any]) -> None:
    """Rewrites the sidecar's JSON; a change returns None if it modified its argument."""
    values = json.loads(sidecar_path(plan).read_text())
    changed = change(values)
    sidecar_path(plan).write_text(json.dumps(values if changed is None else changed))


def test_sidecar_comes_back(plan: Path):
    assert read_sidecar(plan) == (RECORD, METADATA)
    assert sidecar_metadata(plan) == METADATA.to_pairs()
    read_plan(plan, RECORD)


@pytest.mark.parametrize(
    "record",
    [
        replace(RECORD, architectures=()),
        replace(RECORD, architectures=("8.0", "12.0")),
        replace(RECORD, builder="tensorrt-rtx", onnx="\u00e9\u4e2d 'a'.onnx"),
        replace(RECORD, plugin=replace(RECORD.plugin, sources_sha256="")),
    ],
)
def test_every_record_comes_back(plan: Path, record: PlanRecord):
    sidecar_path(plan).write_text(sidecar_text(record, METADATA), "utf-8")
    assert read_sidecar(plan)[0] == record


def test_sidecar_lies_beside_its_plan_whatever_the_names():
    assert sidecar_path(Path("a/b.c.plan")) == Path("a/b.c.plan.json")
    assert set(TITLES) == set(BUILDERS)


@pytest.mark.parametrize("position", range(len(BYTES)))
def test_changed_byte_is_noticed(plan: Path, position: int):
    data = bytearray(BYTES)
    data[position] ^= 1
    plan.write_bytes(data)
    record, _ = read_sidecar(plan)
    with pytest.raises(EngineError, match=rf"is not the file .* run '{plans.COMMAND}'"):
        read_plan(plan, record)


LIBRARY = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\x3e\x00"
GPU_CODE = b"\x7fELF\x02\x01\x01\x41" + bytes(8) + b"\x02\x00\xbe\x00"
DLL = b"MZ" + bytes(58) + (128).to_bytes(4, "little") + bytes(64) + b"PE\0\0"


@pytest.mark.parametrize("before", [b"", b"plan", b"MZ" * 50, GPU_CODE + bytes(5)])
@pytest.mark.parametrize("after", [b"", b"weights", bytes(100)])
@pytest.mark.parametrize(
    ("code", "carries"), [(b"", False), (GPU_CODE, False), (LIBRARY, True), (DLL, True)]
)
def test_library_in_a_plan_is_seen_wherever_it_is(
    tmp_path: Path, before: bytes, after: bytes, code: bytes, carries: bool
):
    (tmp_path / "a.plan").write_bytes(before + code + after)
    assert carries_library((tmp_path / "a.plan").read_bytes()) == carries


def test_real_libraries_are_seen_and_numbers_are_none(tmp_path: Path):
    import numpy as np
    from numpy.linalg import _umath_linalg

    assert carries_library(Path(_umath_linalg.__file__).read_bytes())
    (tmp_path / "a.plan").write_bytes(np.random.default_rng(0).bytes(20_000_000))
    assert not carries_library((tmp_path / "a.plan").read_bytes())


def test_plan_that_carries_a_library_is_refused(plan: Path):
    plan.write_bytes(BYTES + LIBRARY)
    honest = replace(RECORD, plan_sha256=sha256(plan.read_bytes()).hexdigest())
    with pytest.raises(EngineError, match=r"contains a library, whose code would run with your ri"):
        read_plan(plan, honest)


def test_missing_files_are_named(plan: Path):
    sidecar_path(plan).unlink()
    with pytest.raises(CheckpointError, match=r"has no readable sidecar model\.plan\.json \(No su"):
        read_sidecar(plan)
    plan.unlink()
    with pytest.raises(BsmError, match=r"^No such file: .*model\.plan\.$"):
        read_sidecar(plan)


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        (1, "an older bsmamba2: build model.plan again with 'bsm export --trt'"),
        (2, "an older bsmamba2: build model.plan again with 'bsm export --trt'"),
        (4, "has format 4, .* reads up to 3: upgrade bsmamba2"),
    ],
)
def test_sidecars_of_other_versions_say_what_to_do(plan: Path, version: int, sentence: str):
    change(plan, lambda values: {"format": version, "plan": {}, "artefact": values["metadata"]})
    with pytest.raises(CheckpointError, match=sentence):
        read_sidecar(plan)


@pytest.mark.parametrize(
    "command", ["rm -rf ~", "bsm export a.onnx --trt; rm -rf ~", "bsm export a\nlicence  mine"]
)
def test_commands_that_people_are_told_to_run_are_ours(plan: Path, command: str):
    change(plan, lambda values: values | {"plan": values["plan"] | {"command": command}})
    with pytest.raises(CheckpointError, match=r"'command' must be a 'bsm export' command"):
        read_sidecar(plan)


def remove(*path: str) -> Callable[[Any], None]:
    def change(values: Any) -> None:
        for key in path[:-1]:
            values = values[key]
        del values[path[-1]]

    return change


def put(value: Any, *path: str) -> Callable[[Any], None]:
    def change(values: Any) -> None:
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: [],
        lambda _: 3,
        lambda _: "text",
        lambda _: {},
        remove("format"),
        remove("plan"),
        remove("metadata"),
        remove("plan", "frames"),
        remove("plan", "plugin", "version"),
        put("1", "format"),
        put(None, "plan"),
        put(None, "metadata"),
        put("unknown", "plan", "builder"),
        put([1, 2], "plan", "batch"),
        put(["1", "2", "3"], "plan", "frames"),
        put("9.0", "plan", "architectures"),
        put(1, "plan", "plugin", "version"),
        put(False, "plan", "plugin", "embedded"),
        put("more", "plan", "unknown"),
        put("text", "plan", "plugin"),
        put("{", "metadata", "bsm.config"),
        put(3, "metadata", "bsm.config"),
        put("{}", "metadata", "bsm.config"),
        put(1.5, "metadata", "bsm.version"),
        remove("metadata", "bsm.config"),
        remove("metadata", "bsm.provenance"),
    ],
)
def test_damaged_sidecar_is_one_sentence(plan: Path, damage: Callable[[Any], Any]):
    change(plan, damage)
    with pytest.raises(CheckpointError, match=r"\A[^\n]+\.\Z") as error:
        read_sidecar(plan)
    assert str(sidecar_path(plan)) in str(error.value)
    assert "Error" not in str(error.value)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"[" * 100_000, b'{"format": 1'])
def test_sidecar_that_is_no_json_is_one_sentence(plan: Path, data: bytes):
    sidecar_path(plan).write_bytes(data)
    with pytest.raises(CheckpointError, match=r"is damaged .*: copy it from where the plan was"):
        read_sidecar(plan)


def test_random_damage_is_one_sentence_or_a_record(plan: Path):
    generator, text = random.Random(0), sidecar_text(RECORD, METADATA)
    for _ in range(400):
        damaged = list(text)
        for _ in range(2):
            damaged[generator.randrange(len(text))] = generator.choice('{}[]",:019.ntf\\ e-')
        sidecar_path(plan).write_text("".join(damaged))
        try:
            record, _ = read_sidecar(plan)
            assert record.builder in BUILDERS
        except BsmError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_reading_a_sidecar_imports_no_backend(plan: Path):
    code = (
        "import sys; from pathlib import Path; from bsmamba2.formats.trt_plan import read_sidecar;"
        "read_sidecar(Path(sys.argv[1]));"
        "print(sorted({'torch', 'onnx', 'numpy', 'onnxruntime', 'tensorrt'} & set(sys.modules)))"
    )
    assert printed(code, plan) == "[]\n"
