"""A path is a file, whatever its letters; nothing in a file opens another one or an address."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from audio_files import RATE, encode, noise, read, save, tones

from bsmamba2.runtime.audio.source_file import SourceFile

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no colons in names")

NAMES = ["Prince:Kiss.m4a", "04.23:50.m4a", "file:loud.m4a", "concat:loud.m4a|loud.m4a", "pipe:0",
         "subfile,,start,0,end,100,,:loud.m4a", "data:audio,x.m4a", "crypto:loud.m4a", "-",
         "cache:loud.m4a", "async:file:loud.m4a", "%d.m4a", "a?b#c.m4a", " .m4a", "\udcff.m4a",
         "concatf:list", "unix:x", "fd:0", "md5:loud.m4a"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("absolute", [False, True])
def test_a_path_with_a_colon_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, absolute: bool
):
    song = encode(tmp_path / "plain.m4a", "aac", tones(RATE, 2))
    encode(tmp_path / "loud.m4a", "aac", noise(RATE))
    expected = read(song)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name if absolute else Path(name)
    shutil.copy(song, path)
    assert np.array_equal(read(path), expected)


@pytest.mark.parametrize("protocol", ["http", "tcp", "rtmp", "https", "ftp", "async:http"])
def test_a_folder_called_like_a_protocol_is_no_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
):
    with socket.create_server(("127.0.0.1", 0)) as server:
        folder = Path(f"{protocol}:/127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.chdir(tmp_path)
        folder.mkdir(parents=True)
        encode(tmp_path / "x.m4a", "alac", noise(RATE)).rename(folder / "x.m4a")
        assert read(folder / "x.m4a").shape == (2, RATE)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_position_that_no_file_has_leaves_the_file_where_it_was(tmp_path: Path):
    with SourceFile(save(tmp_path / "a.wav", noise(10))) as file:
        for offset in (-1000, 1 << 80):
            assert file.seek(40) == 40
            assert file.seek(offset, os.SEEK_CUR) == file.tell() == 40
        assert not hasattr(file, "name")
