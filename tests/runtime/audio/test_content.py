"""The content of a file decides how it is read, not its suffix; no decoder prints."""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from audio_files import RATE, encode, read, tones

from bsmamba2.errors import AudioError, MissingExtraError

SUFFIXES = (".wav", ".flac", ".mp3", ".opus", ".oga", ".m4a", ".raw", ".aac", "")


@pytest.mark.parametrize(("suffix", "codec"),
                         [(".m4a", "aac"), (".aac", "aac"), (".webm", "libopus"), (".mka", "flac"),
                          (".oga", "flac"), (".wav", "ac3"), (".ac3", "ac3"), (".wav", "pcm_s16le"),
                          (".mp3", "libmp3lame"), (".mp2", "mp2"), (".w64", "pcm_f32le"),
                          (".tta", "tta"), (".wv", "wavpack")])  # fmt: skip
def test_content_decides_and_not_the_suffix(tmp_path: Path, suffix: str, codec: str):
    song = encode(tmp_path / f"plain{suffix}", codec, tones(RATE, 2))
    expected = read(song)
    assert RATE - 1152 <= expected.shape[1] < RATE + 5 * 1536
    for other in SUFFIXES:
        assert np.array_equal(read(Path(shutil.copy(song, tmp_path / f"other{other}"))), expected)


def test_without_pyav_the_sentence_is_true_whatever_the_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    song = encode(tmp_path / "a.m4a", "aac", tones(RATE, 2))
    monkeypatch.setitem(sys.modules, "av", None)
    for suffix in SUFFIXES:
        path = Path(shutil.copy(song, tmp_path / f"b{suffix}"))
        with pytest.raises(
            MissingExtraError, match=rf"^libsndfile cannot read .*b{suffix};.*\[av\]"
        ):
            read(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"A text.\n" * 1000, bytes(50_000), b"\xff" * 50_000,
                                     random.Random(0).randbytes(50_000),
                                     b"ID3\x04\0\0\0\0\x01\0" + bytes(50_000)])  # fmt: skip
def test_what_no_decoder_reads_is_not_audio(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str, content: bytes
):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(AudioError, match="is not audio or is damaged"):
        read(path)
    assert capfd.readouterr() == ("", "")
