"""Everything that runs code from files is documented; nothing goes to the network."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fuzz_corpus import CONFIG
from no_network import can_forbid
from processes import python

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "SECURITY.md").read_text("utf-8")
_FORBIDDEN = f"import os, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
_FORBIDDEN += "os.environ.pop('ORT_DISABLE_TELEMETRY', None)\n"  # which other tests need
_FORBIDDEN += "from no_network import forbid_network; forbid_network()\n"
_COMMANDS = """
infer song.wav --quiet
infer song.wav --quiet --format mp3 --out out/{stem}.{ext}
info default
doctor
parity default default --audio song.wav
train --config small.yaml --data songs --out run --quiet
export run/ema.safetensors -o model.onnx
import run/ema.safetensors -o again.safetensors
infer song.wav --quiet --engine again.safetensors --overlap 0
eval model.onnx --data songs --quiet --report report.html
practice --help
plugin --help
"""
_RUN = """
from bsmamba2.cli import main
for line in sys.argv[1].strip().splitlines():
    try:
        main(line.split())
    except SystemExit as done:
        assert not done.code or line == "doctor", line
"""


def write_songs(folder: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((66_150, 2)) / 20
    soundfile.write(folder / "song.wav", noise, 44_100)
    for split in ("train", "valid", "test"):
        song = folder / "songs" / split / "song"
        song.mkdir(parents=True)
        for stem in ("mixture", "vocals", "drums", "bass", "other"):
            soundfile.write(song / f"{stem}.wav", noise, 44_100, subtype="FLOAT")


needs_filter = pytest.mark.skipif(not can_forbid(), reason="needs seccomp, as Linux has it")


@needs_filter
@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
def test_a_process_that_opens_a_socket_is_ended(family: str) -> None:
    """Otherwise the next test would pass whatever the commands do."""
    done = python(f"{_FORBIDDEN}import socket; socket.socket(socket.{family})")
    assert done.returncode == -signal.SIGSYS, done.stderr


@needs_filter
@pytest.mark.slow
def test_no_command_opens_a_socket(tmp_path: Path) -> None:
    write_songs(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG)
    own = {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = python(_FORBIDDEN + _RUN, _COMMANDS, folder=tmp_path, **own)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "report.html").exists()


def test_everything_that_loads_native_code_is_on_the_page() -> None:
    """Only modules that SECURITY.md names open libraries, and none reads pickles."""
    opening = re.compile(r"ctypes\.CDLL|load_library\(|register_custom_ops_library")
    for room in ("bsmamba2", "export", "runtime", "plugins"):
        for path in (ROOT / room).rglob("*.py"):
            text = path.read_text("utf-8")
            name = path.relative_to(ROOT).as_posix()
            assert not opening.search(text) or f"({name})" in PAGE, name
            assert not re.search(r"^\s*(import|from) (pickle|marshal|shelve|dill)\b", text, re.M), (
                name
            )
            for call in re.findall(r"torch\.load\((.*?)\)", text):
                assert "weights_only=True" in call, name
