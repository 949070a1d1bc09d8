"""Law: what a pickle would call is never called, and the refusal names it."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_files import lightning_checkpoint, model_of, random_weights

from bsmamba2.checkpoints.pickle_data import read_pickle
from bsmamba2.checkpoints.pickle_values import Global, Inert
from bsmamba2.checkpoints.weights import import_checkpoint
from bsmamba2.errors import CheckpointError

STATE = random_weights(model_of("tiny"))


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


class Setter:
    """An object whose state is set by code."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __setstate__(self, state: dict[str, str]) -> None:
        Path(state["path"]).touch()


def touch_python(path: Path) -> str:
    return f"open({str(path)!r}, 'w').close()"


CALLS: dict[str, Callable[[Path], Call]] = {
    "posix.system": lambda p: Call(os.system, f"touch '{p}'"),
    "builtins.eval": lambda p: Call(eval, touch_python(p)),
    "builtins.exec": lambda p: Call(exec, touch_python(p)),
    f"{open.__module__}.open": lambda p: Call(open, str(p), "w"),
    "builtins.getattr": lambda p: Call(getattr, p, "touch"),
    "subprocess.Popen": lambda p: Call(subprocess.Popen, ["touch", str(p)]),
    "importlib.import_module": lambda p: Call(__import__("importlib").import_module, "this"),
    "builtins.__import__": lambda p: Call(__import__, "this"),
    "runpy.run_path": lambda p: Call(__import__("runpy").run_path, str(p)),
    "numpy.save": lambda p: Call(np.save, str(p), 1),
    "torch._utils._element_size": lambda p: Call(torch._utils._element_size, torch.float32),
    "torch.storage._load_from_bytes": lambda p: Call(torch.storage._load_from_bytes, b"x"),
}


def opcodes(path: Path) -> dict[str, tuple[str, bytes]]:
    """Programs that `pickle.dumps` does not write: name -> (what is refused, pickle)."""
    command = f"touch '{path}'".encode()
    text = b"X" + struct.pack("<I", len(command)) + command
    return {
        "INST": ("posix.system", b"(S'" + command.replace(b"'", b'"') + b"'\niposix\nsystem\n."),
        "INST py2": ("builtins.eval", b"(S'1'\ni__builtin__\neval\n."),
        "OBJ": ("os.system", b"(cos\nsystem\n" + text + b"o."),
        "REDUCE": ("os.system", b"cos\nsystem\n" + text + b"\x85R."),
        "STACK_GLOBAL": ("os.system", b"\x80\x04\x8c\x02os\x8c\x06system\x93" + text + b"\x85R."),
        "NEWOBJ": ("os.system", b"\x80\x02cos\nsystem\n" + text + b"\x85\x81."),
        "NEWOBJ_EX": ("os.system", b"\x80\x04cos\nsystem\n" + text + b"\x85}\x92."),
        "dotted": ("os.path.os.system", b"\x80\x04\x8c\x02os\x8c\x0epath.os.system\x93."),
        "named only": ("subprocess.Popen", b"csubprocess\nPopen\n."),
        "BUILD": ("builtins.setattr", b"c__builtin__\nsetattr\n}b."),
        "call of a result": (
            "the result of functools.partial",
            b"cfunctools\npartial\n(cbuiltin_functions\nrun\ntR" + text + b"\x85R.",
        ),
        "reduce of another function": (
            "functools.reduce",
            b"cfunctools\nreduce\ncmodule\nrun\n]\x86R.",
        ),
        "rebuild of a subclass by a call": (
            "module.run",
            b"ctorch._tensor\n_rebuild_from_type_v2\n(cmodule\nrun\ncmodule\nClass\n)}tR.",
        ),
    }


def nested(evil: Any, where: str) -> dict[str, Any]:
    checkpoint = lightning_checkpoint(STATE)
    if where == "optimizer":
        checkpoint["optimizer_states"][0]["state"][0]["exp_avg"] = evil
    elif where == "hyper_parameters":
        checkpoint["hyper_parameters"]["evil"] = collections.defaultdict(list, {"a": [evil]})
    else:
        checkpoint["state_dict"]["model.final_norm.gamma"] = evil
    return checkpoint


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("where", ["optimizer", "hyper_parameters", "state_dict"])
@pytest.mark.parametrize("name", CALLS)
def test_calls_are_refused_by_name_and_not_executed(
    tmp_path: Path, name: str, where: str, legacy: bool
) -> None:
    path, sentinel = tmp_path / "a.ckpt", tmp_path / "sentinel"
    checkpoint = nested(CALLS[name](sentinel), where)
    torch.save(checkpoint, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError) as error:
        import_checkpoint(path, config="tiny")
    assert f"would call {name} " in str(error.value)
    assert "\n" not in str(error.value)
    assert not sentinel.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", CALLS)
def test_bare_pickles_are_refused_by_name_at_every_protocol(
    tmp_path: Path, name: str, protocol: int
) -> None:
    sentinel = tmp_path / "sentinel"
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps(CALLS[name](sentinel), protocol))
    with pytest.raises(CheckpointError, match=f"would call {name} "):
        import_checkpoint(tmp_path / "a.ckpt")
    assert not sentinel.exists()


def test_the_payloads_are_live(tmp_path: Path) -> None:
    """Or the laws above would hold of anything."""
    for name in ("posix.system", "builtins.eval", "builtins.exec"):
        sentinel = tmp_path / name
        pickle.loads(pickle.dumps(CALLS[name](sentinel)))
        assert sentinel.exists()
    pickle.loads(opcodes(tmp_path / "object")["OBJ"][1])
    assert (tmp_path / "object").exists()
    pickle.loads(pickle.dumps(Setter(tmp_path / "state")))
    assert (tmp_path / "state").exists()


@pytest.mark.parametrize("name", opcodes(Path()))
def test_every_opcode_that_calls_is_refused(tmp_path: Path, name: str) -> None:
    refused, program = opcodes(tmp_path / "sentinel")[name]
    with pytest.raises(CheckpointError, match=f"would call {refused} "):
        read_pickle(io.BytesIO(program), "a.ckpt")
    assert not (tmp_path / "sentinel").exists()


@pytest.mark.parametrize("program", [b"\x82\x01.", b"Pid\n.", b"\x80\x05\x97.", b"N\x98."])
def test_extension_and_persistent_opcodes_are_refused(program: bytes) -> None:
    with pytest.raises(CheckpointError, match="damaged"):
        read_pickle(io.BytesIO(program), "a.ckpt")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_states_of_unknown_classes_are_left_out_and_not_set(tmp_path: Path, legacy: bool) -> None:
    path, sentinel = tmp_path / "a.ckpt", tmp_path / "sentinel"
    checkpoint = nested(Setter(sentinel), "optimizer")
    torch.save(checkpoint, path, _use_new_zipfile_serialization=not legacy)
    tensors, _ = import_checkpoint(path, config="tiny")
    assert torch.equal(tensors["final_norm.gamma"], STATE["final_norm.gamma"])
    assert not sentinel.exists()


def test_modules_that_a_pickle_names_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_on_import.py").write_text(touch_python(tmp_path / "sentinel"))
    monkeypatch.syspath_prepend(str(tmp_path))
    data = read_pickle(io.BytesIO(b"\x80\x02cevil_on_import\nThing\n)\x81}b."), "a.ckpt")
    assert data == Inert("evil_on_import.Thing")
    assert "evil_on_import" not in sys.modules
    assert not (tmp_path / "sentinel").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_out_as_pickle_would_give_it(protocol: int) -> None:
    shared = [1, 2]
    data = {
        "numbers": [0, -1, 255, 65535, 1 << 31, 1 << 80, -(1 << 80), 1.5, float("inf")],
        "texts": ["", "ä€", "x" * 300],
        "flags": (None, True, False),
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "shared": [shared, shared],
        "order": collections.OrderedDict(b=1, a=2),
        5: {"nested": {}},
    }
    assert read_pickle(io.BytesIO(pickle.dumps(data, protocol)), "a.ckpt") == data


def test_names_stay_names() -> None:
    assert read_pickle(io.BytesIO(pickle.dumps(Path)), "a").name.endswith("Path")
    assert read_pickle(io.BytesIO(pickle.dumps(int)), "a") == Global("builtins.int")


def test_arbitrary_bytes_end_in_a_sentence_or_in_data() -> None:
    generator = np.random.default_rng(0)
    whole = pickle.dumps({"a": [1, (2, "x")], "b": Path("x"), "c": {1, 2}}, 2)
    for i in range(2000):
        program = bytearray(whole if i % 2 else generator.bytes(60))
        program[generator.integers(len(program))] = generator.integers(256)
        try:
            read_pickle(io.BytesIO(program), "a.ckpt")
        except CheckpointError as error:
            assert "\n" not in str(error)  # noqa: PT017
