"""Commands that fail, one or more for every class of error; ERRORS.md shows their messages."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from processes import no_new_threads
from safetensors.numpy import save_file

from bsmamba2 import errors
from bsmamba2.cli import cli
from bsmamba2.errors import BsmError
from bsmamba2.formats.model_files import CONFIG_KEY
from bsmamba2.runtime.engines import default_engine_path
from bsmamba2.system.lanes import Lane

RATE = 44_100


@dataclass(frozen=True)
class ErrorCase:
    """A command that fails, and the class of error that it raises."""

    kind: type[BsmError]
    command: str
    """Arguments of `bsm`; if `call` is given, what ERRORS.md shows in place of a command."""
    without: str | None = None
    """A module to hide, as if it were not installed."""
    call: Callable[[], object] | None = None
    """Called instead of the command."""


def _load_scan() -> None:
    from bsmamba2.plugins.cuda_library import ScanLibrary

    ScanLibrary("gone.so")


def _refuse_thread() -> None:
    with no_new_threads():
        Lane("bsm-engine").submit(lambda: None)


CASES = [
    ErrorCase(errors.OptionError, "infer song.wav --stems drums"),
    ErrorCase(errors.OptionError, "infer song.wav --overlap 60"),
    ErrorCase(errors.OptionError, "infer song.wav --out out/{track}/{stem}"),
    ErrorCase(errors.OptionError, "infer song.wav --out out/{track}.wav"),
    ErrorCase(errors.OptionError, "infer song.wav --out out/{name}.wav"),
    ErrorCase(errors.OptionError, "infer song.wav --format mp3 --depth 24"),
    ErrorCase(errors.OptionError, "import model.ckpt --output model.onnx"),
    ErrorCase(errors.OptionError, "eval default --data songs --by-length 0"),
    ErrorCase(errors.FileError, "info gone.onnx"),
    ErrorCase(errors.FileError, "info folder.onnx"),
    ErrorCase(errors.FileError, "eval default --data songs --report folder.onnx"),
    ErrorCase(errors.ConfigError, "info gone"),
    ErrorCase(errors.ConfigError, "info broken.yaml"),
    ErrorCase(errors.ConfigError, "train --data songs --out run --set network.layer=3"),
    ErrorCase(errors.ConfigError, "train --data songs --out run --set audio.hop=0"),
    ErrorCase(errors.CheckpointError, "info model.ckpt"),
    ErrorCase(errors.CheckpointError, "infer song.wav --engine run/best/step-9.ckpt"),
    ErrorCase(errors.CheckpointError, "import calling.ckpt"),
    ErrorCase(errors.CheckpointError, "import text.ckpt"),
    ErrorCase(errors.CheckpointError, "info text.safetensors"),
    ErrorCase(errors.CheckpointError, "info text.onnx"),
    ErrorCase(errors.CheckpointError, "info model.plan"),
    ErrorCase(errors.AudioError, "parity default default --audio text.wav"),
    ErrorCase(errors.AudioError, "parity default default --audio empty.wav"),
    ErrorCase(errors.AudioError, "parity default default --audio cut.wav"),
    ErrorCase(errors.AudioError, "parity default default --audio nan.wav"),
    ErrorCase(errors.AudioError, "parity default default --audio surround.wav"),
    ErrorCase(errors.AudioError, "parity default default --audio silent.wav"),
    ErrorCase(errors.DataError, "eval default --data gone"),
    ErrorCase(errors.DataError, "eval default --data songs"),
    ErrorCase(errors.EngineError, "infer song.wav --engine song.wav"),
    ErrorCase(errors.EngineError, "infer song.wav --engine model.onnx --precision float16"),
    ErrorCase(errors.ExportError, "export default --trt --output model.txt"),
    ErrorCase(errors.ExportError, "export default --trt --frames 3:2:1"),
    ErrorCase(
        errors.ResourceError,
        "`bsm infer song.wav` (in a container whose limit of threads is reached)",
        call=_refuse_thread,
    ),
    ErrorCase(errors.TrainingError, "train --config tiny --data songs --out run"),
    ErrorCase(
        errors.PluginError,
        "`BSM_SCAN_LIBRARY=gone.so bsm infer song.wav --engine model.safetensors` (on a GPU)",
        call=_load_scan,
    ),
    ErrorCase(
        errors.MissingExtraError,
        "import model.ckpt",
        without="bsmamba2.checkpoints.foreign",  # which cannot be imported without torch
    ),
]


class _Call:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("true",)


def make_files(folder: Path) -> None:
    """Writes the files that the commands name into an empty folder."""
    tone = 0.1 * np.sin(np.arange(RATE) / 20)[:, None].repeat(2, axis=1)
    songs = {"song": tone, "silent": 0 * tone, "surround": tone.repeat(3, axis=1)}
    songs["nan"] = np.where(np.arange(RATE)[:, None] == RATE // 2, np.nan, tone)
    for name, samples in songs.items():
        soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="FLOAT")
    whole = (folder / "song.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.wav").touch()
    for suffix in ("wav", "ckpt", "safetensors", "onnx"):
        (folder / f"text.{suffix}").write_text("This is a text.\n")
    torch.save(_Call(), folder / "calling.ckpt")
    torch.save({}, folder / "model.ckpt")
    (folder / "model.plan").write_bytes(b"x")
    shutil.copy(default_engine_path(), folder / "model.onnx")
    (folder / "broken.yaml").write_text("network: [")
    for name in ("folder.onnx", "songs/train", "run/best"):
        (folder / name).mkdir(parents=True)
    torch.save({}, folder / "run/best/step-9.ckpt")
    save_file({}, folder / "run/best/step-9.safetensors", {CONFIG_KEY: ""})
    (folder / "run" / "last.ckpt").write_bytes(b"x")


@functools.cache
def provoke(case: ErrorCase) -> BsmError:
    """Runs a case once, in a folder of `make_files`; returns the error that it raises."""
    with pytest.MonkeyPatch.context() as patch:
        if case.without:
            patch.setitem(sys.modules, case.without, None)
        try:
            if case.call:
                case.call()
            else:
                cli.main(case.command.split(), standalone_mode=False)
        except BsmError as error:
            return error
    raise AssertionError(f"{case.command} succeeded")
