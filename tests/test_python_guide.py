"""The guide to Python is a notebook that runs from its first cell to its last."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import soundfile
from audio_files import RATE, noise, save
from processes import printed

from bsmamba2.runtime import EngineOptions, Separator, load_engine

GUIDE = (Path(__file__).parents[1] / "docs/python.md").read_text("utf-8")


def test_all_cells_run_in_order(tmp_path: Path):
    mixture = noise(RATE)
    mixture[1] = mixture[0]  # all in the middle
    save(tmp_path / "song.wav", mixture, subtype="FLOAT")
    cells = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    check = "np.save('middle.npy', middle)"
    printed("\n".join([*cells, check]), folder=tmp_path)
    assert len(cells) == 5
    assert soundfile.info(tmp_path / "voice.flac").frames == RATE // 2
    assert (tmp_path / "song.png").read_bytes().startswith(b"\x89PNG")
    assert np.abs(np.load(tmp_path / "middle.npy") - mixture).max() < 1e-5


def test_signatures_are_those_of_the_code():
    for function, text in re.findall(
        r"^\| `(load_engine|EngineOptions|Separator)\((.*?)\)`", GUIDE, re.MULTILINE
    ):
        callees = (load_engine, EngineOptions, Separator)
        callee = {callee.__name__: callee for callee in callees}[function]
        parameters = inspect.signature(callee).parameters.values()
        shown = [
            p.name if p.default is p.empty else f"{p.name}={p.default!r}".replace("'", '"')
            for p in parameters
        ]
        assert re.findall(r"[\w]+(?:=[^,]+)?", text.replace("*, ", "")) == shown
