"""Law: nothing that a pickle would call is called, and the refusal names it."""

from __future__ import annotations

import collections
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from foreign_files import lightning_checkpoint, model_of, random_weights

from bsmamba2.checkpoints.foreign import import_foreign
from bsmamba2.checkpoints.torch_file import Placeholder, load_torch_file
from bsmamba2.errors import CheckpointError

STATE = random_weights(model_of("tiny"))


class Call:
    """An object whose pickle calls a function."""

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


@pytest.mark.parametrize("where", ["optimizer", "hyper_parameters", "state_dict"])
@pytest.mark.parametrize("name", CALLS)
def test_calls_are_refused_by_name_and_not_executed(tmp_path: Path, name: str, where: str) -> None:
    path, sentinel = tmp_path / "a.ckpt", tmp_path / "sentinel"
    checkpoint = nested(CALLS[name](sentinel), where)
    torch.save(checkpoint, path)
    with pytest.raises(CheckpointError) as error:
        import_foreign(path, config="tiny")
    assert f"would call {name} " in str(error.value)
    assert "\n" not in str(error.value)
    assert not sentinel.exists()


def test_the_payloads_are_live(tmp_path: Path) -> None:
    """Plain pickle runs them; otherwise the laws above would prove nothing."""
    for name in ("posix.system", "builtins.eval", "builtins.exec"):
        sentinel = tmp_path / name
        pickle.loads(pickle.dumps(CALLS[name](sentinel)))
        assert sentinel.exists()
    pickle.loads(opcodes(tmp_path / "object")["OBJ"][1])
    assert (tmp_path / "object").exists()
    pickle.loads(pickle.dumps(Setter(tmp_path / "state")))
    assert (tmp_path / "state").exists()


def zipped(path: Path, program: bytes) -> Path:
    """A file of `torch.save` that contains any given pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", program)
        archive.writestr("a/version", "3\n")
    return path


@pytest.mark.parametrize("name", opcodes(Path()))
def test_every_opcode_that_calls_is_refused(tmp_path: Path, name: str) -> None:
    refused, program = opcodes(tmp_path / "sentinel")[name]
    with pytest.raises(CheckpointError, match=f"would call {refused} "):
        load_torch_file(zipped(tmp_path / "a.ckpt", program))
    assert not (tmp_path / "sentinel").exists()


def test_states_of_unknown_classes_are_left_out_and_not_set(tmp_path: Path) -> None:
    path, sentinel = tmp_path / "a.ckpt", tmp_path / "sentinel"
    checkpoint = nested(Setter(sentinel), "optimizer")
    torch.save(checkpoint, path)
    tensors = import_foreign(path, config="tiny").tensors
    assert torch.equal(tensors["final_norm.gamma"], STATE["final_norm.gamma"])
    assert not sentinel.exists()


def test_modules_that_a_pickle_names_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_on_import.py").write_text(touch_python(tmp_path / "sentinel"))
    monkeypatch.syspath_prepend(str(tmp_path))
    program = b"\x80\x02cevil_on_import\nThing\n)\x81}b."
    data = load_torch_file(zipped(tmp_path / "a.ckpt", program))
    assert isinstance(data, Placeholder)
    assert data.name == "evil_on_import.Thing"
    assert "evil_on_import" not in sys.modules
    assert not (tmp_path / "sentinel").exists()


def test_plain_data_comes_out_as_pickle_would_give_it(tmp_path: Path) -> None:
    shared = [1, 2]
    data = {
        "numbers": [0, -1, 255, 65535, 1 << 31, 1 << 80, -(1 << 80), 1.5, float("inf")],
        "texts": ["", "ä€", "x" * 300],
        "flags": (None, True, False),
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "shared": [shared, shared],
        "order": collections.OrderedDict(b=1, a=2),
        "filled": [collections.defaultdict(list, a=[1]), collections.deque([1, 2])],
        5: {"nested": {}},
    }
    torch.save(data, tmp_path / "a.ckpt")
    data["filled"] = [{"a": [1]}, [1, 2]]
    assert load_torch_file(tmp_path / "a.ckpt") == data


def test_dictionaries_of_lightning_come_out_as_plain_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "lightning_fabric.utilities.data"
    kind = type("AttributeDict", (dict,), {"__module__": name})
    for part in ("lightning_fabric", "lightning_fabric.utilities", name):
        monkeypatch.setitem(sys.modules, part, ModuleType(part))
    monkeypatch.setattr(sys.modules[name], "AttributeDict", kind, raising=False)
    torch.save(kind(a=1), tmp_path / "a.ckpt")
    assert load_torch_file(tmp_path / "a.ckpt") == {"a": 1}


def test_arbitrary_bytes_end_in_a_sentence_or_in_data(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    whole = pickle.dumps({"a": [1, (2, "x")], "b": Path("x"), "c": {1, 2}}, 2)
    for i in range(2000):
        program = bytearray(whole if i % 2 else generator.bytes(60))
        program[generator.integers(len(program))] = generator.integers(256)
        try:
            load_torch_file(zipped(tmp_path / "a.ckpt", bytes(program)))
        except CheckpointError as error:
            assert "\n" not in str(error)  # noqa: PT017


def repacked(path: Path, change: Callable[[dict[str, bytes]], None], **options: Any) -> Path:
    """A zip file of torch with other entries, whose checksums are right."""
    torch.save({"a": torch.arange(100.0), "b": torch.arange(50.0)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def shorten(entries: dict[str, bytes]) -> None:
    entries["a/data/0"] = entries["a/data/0"][:40]


def swell(entries: dict[str, bytes]) -> None:
    entries["a/data/0"] = bytes(1 << 26)


@pytest.mark.parametrize(
    ("change", "options", "why"),
    [
        (shorten, {}, "storages larger than the file"),
        (lambda entries: entries.pop("a/data/0"), {}, "damaged"),
        (swell, {"compression": zipfile.ZIP_DEFLATED}, "compressed"),
    ],
)
def test_archives_that_lie_are_refused(
    tmp_path: Path, change: Callable[..., Any], options: dict[str, Any], why: str
) -> None:
    with pytest.raises(CheckpointError, match=why):
        load_torch_file(repacked(tmp_path / "a.ckpt", change, **options))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_a_large_archive_takes_no_memory(tmp_path: Path) -> None:
    path, size_mib = tmp_path / "a.ckpt", 256
    torch.save({"a": torch.ones(size_mib << 18)}, path)
    program = """if True:
        import sys; from pathlib import Path
        from bsmamba2.checkpoints.torch_file import load_torch_file
        def peak_kib():
            return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
        before = peak_kib()
        data = load_torch_file(Path(sys.argv[1]))
        print((peak_kib() - before) / 1024)
    """
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < size_mib / 2


def test_a_key_that_is_nested_too_deeply_to_be_hashed_is_one_sentence(tmp_path: Path) -> None:
    """Hashing it would overflow the stack and end the process."""
    program = b"\x80\x02})" + b"\x85" * 500_000 + b"K\x01s."
    with pytest.raises(CheckpointError, match="more tuples than weights need"):
        import_foreign(zipped(tmp_path / "a.ckpt", program))
