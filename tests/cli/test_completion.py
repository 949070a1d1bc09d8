"""Shells complete commands with the script that `bsm completion` prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bsmamba2.cli import COMMANDS

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
PRESS_TAB = """
source <(bsm completion bash)
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
compopt() { printf '%s %s\\n' compopt "$2"; }
_bsm_completion bsm
printf '%s\\n' "${COMPREPLY[@]}"
"""


def press_tab(*words: str) -> list[str]:
    done = subprocess.run(
        ["bash", "-c", PRESS_TAB, "bash", *words],
        env=os.environ | {"PATH": PATH}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(("words", "replies"), [
    (["bsm", ""], list(COMMANDS)),
    (["bsm", "inf"], ["infer", "info"]),
    (["bsm", "infer", "--fo"], ["--format"]),
    (["bsm", "infer", "--format", ""], ["wav", "flac", "mp3", "ogg"]),
    (["bsm", "completion", ""], ["bash", "zsh", "fish"]),
    (["bsm", "infer", "so"], ["compopt default", ""]),
])  # fmt: skip
def test_bash_completes_commands_options_choices_and_files(words: list[str], replies: list[str]):
    assert press_tab(*words) == replies


@pytest.mark.parametrize(("shell", "reply"), [
    ("zsh", "plain\n--format\n"), ("fish", "plain,--format\t")
])  # fmt: skip
def test_other_shells_get_their_script_and_answers(shell: str, reply: str):
    environment = os.environ | {"PATH": PATH}
    script = subprocess.run(
        ["bsm", "completion", shell], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert f"_BSM_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)
    asked = {"_BSM_COMPLETE": f"{shell}_complete", "COMP_WORDS": "bsm infer --fo"}
    asked["COMP_CWORD"] = "--fo" if shell == "fish" else "2"
    done = subprocess.run(["bsm"], env=environment | asked, capture_output=True, text=True)
    assert done.stdout.startswith(reply)
