"""Laws of the standard streams: what nobody can read ends nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from faults_train import CONFIG
from processes import MAIN

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")

RATE = 44100
STEMS = ("vocals", "drums", "bass", "other")
INFER = {  # arguments -> exit code
    "infer song.wav --threads 1 -o out/{stem}.wav": 0,
    "infer song.wav gone.wav --threads 9999 -o out/{stem}.wav": 1,
    "infer --no-such-option": 2,
}
EVAL = {"eval default --data songs --threads 1 --out eval --report eval.html": 0}
TRAIN = {
    "train --config small.yaml --data songs --out run --threads 1 --set training.max_steps=1 "
    "--set training.workers=1": 0,
}
CODE = """
import json, logging, os, sys, warnings
from bsmamba2.cli import main
codes = []
for line in json.loads(sys.argv[1]):
    try: main(line.split())
    except SystemExit as end: codes.append(end.code)
logging.getLogger().warning("a warning")
warnings.warn("another")
print(sys.stderr.fileno(), codes)
"""


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a song, and with songs for training and evaluation."""
    folder = tmp_path_factory.mktemp("music")
    random = np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        song = folder / "songs" / split / "song"
        song.mkdir(parents=True)
        stems = 0.05 * random.standard_normal((4, RATE, 2)).astype(np.float32)
        for name, samples in zip((*STEMS, "mixture"), (*stems, stems.sum(0)), strict=True):
            soundfile.write(song / f"{name}.wav", samples, RATE, subtype="FLOAT")
    shutil.copy(song / "mixture.wav", folder / "song.wav")
    (folder / "small.yaml").write_text(CONFIG)
    return folder


@pytest.mark.parametrize(
    ("redirection", "commands", "written"),
    [
        ("2>&-", INFER | TRAIN, "run/best.safetensors"),
        ("2>/dev/full", INFER | EVAL, "eval.html"),
        ("2> >(exec <&-)", INFER, "out/instrumental.wav"),
    ],
    ids=["closed", "full", "without a reader"],
)
def test_without_stderr_every_command_ends_as_it_would(
    music: Path, tmp_path: Path, redirection: str, commands: dict[str, int], written: str
):
    for path in music.iterdir():
        (tmp_path / path.name).symlink_to(path)
    line = f'exec "$0" -c "$1" "$2" {redirection}'
    done = subprocess.run(
        ["bash", "-c", line, sys.executable, CODE, json.dumps([*commands])],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == f"2 {[*commands.values()]}"
    assert done.returncode == 0
    assert (tmp_path / written).exists()
    assert soundfile.info(tmp_path / "out" / "vocals.wav").frames == RATE


def test_without_any_stream_a_song_is_separated(music: Path, tmp_path: Path):
    line = 'exec "$0" -c "$1" infer "$2" -o "{stem}.wav" <&- >&- 2>&-'
    song = str(music / "song.wav")
    assert subprocess.call(["bash", "-c", line, sys.executable, MAIN, song], cwd=tmp_path) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"instrumental.wav", "vocals.wav"}
