"""Laws of salient segments and of their cache."""

from __future__ import annotations

import json
import logging
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from noise_songs import AUDIO, DATA, RATE, STEMS, bursts, data_config, noise, write, write_song

from bsmamba2.config.model import AudioConfig
from bsmamba2.data import salience as module
from bsmamba2.data.salience import Salience, find_salient, salient_starts, salient_tracks
from bsmamba2.data.salience_cache import CACHE_FOLDER
from bsmamba2.data.tracks import FoundTracks, Track
from bsmamba2.errors import DataError


def plain_starts(path: Path, window: int) -> list[int]:
    """The rule with the published numbers, applied to the whole file in memory."""
    song, _ = soundfile.read(path, always_2d=True)
    while len(song) < window:
        song = np.vstack([song, np.zeros((window - len(song), song.shape[1]))])
    windows = []
    start = 0
    while start + window <= len(song):
        rms = [
            [
                math.sqrt(
                    np.mean(song[start + i * window // 10 : start + (i + 1) * window // 10, c] ** 2)
                )
                for i in range(10)
            ]
            for c in range(song.shape[1])
        ]
        windows.append((start, rms))
        start += round(window / 2)
    salient = []
    for start, rms in windows:
        loud = []
        for c in range(song.shape[1]):
            pieces = sorted(rms[c])
            at = 0.15 * (len(pieces) - 1)
            low, high = pieces[math.floor(at)], pieces[math.ceil(at)]
            threshold = max(low + (high - low) * (at - math.floor(at)), 1e-3)
            loud.append(sum(value > threshold for value in rms[c]) > 5)
        if all(loud):
            salient.append(start)
    return salient


def as_lists(salience: Salience) -> dict[str, dict[str, list[int]]]:
    return {
        stem: {place.track.name: place.starts.tolist() for place in places}
        for stem, places in salience.items()
    }


@pytest.fixture
def tracks(tmp_path: Path) -> list[Track]:
    return [write_song(tmp_path / "root" / "train" / f"s{i}", 12, i, make=bursts) for i in range(2)]


def cache_files(tracks: list[Track]) -> list[Path]:
    return sorted((tracks[0].folder.parent.parent / CACHE_FOLDER).iterdir())


def spoil(track: Track) -> None:
    """Overwrites the files with noise and no header; sizes and times stay the same."""
    for stem in STEMS:
        path = track.stem(stem)
        before = path.stat()
        path.write_bytes(b"\xff" * before.st_size)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("rate", [RATE, 7001])
@pytest.mark.parametrize("frames", [1, 5000, 7001, 8000, 8001, 12_000, 24_000, 70_123])
def test_salient_segments_are_those_of_the_rule(tmp_path: Path, rate: int, frames: int) -> None:
    audio = AudioConfig(sample_rate=rate, channels=2, chunk_s=1, n_fft=512, hop=1, target="vocals")
    kinds = (bursts, noise)
    for number in range(4):
        samples = kinds[number % 2](10, number)[:frames]
        path = write(tmp_path / f"{number}.wav", samples, rate)
        assert salient_starts(path, DATA, audio) == plain_starts(path, rate)


def test_the_rule_selects_some_and_not_all(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", bursts(30, 3))
    assert 5 < len(salient_starts(path, DATA, AUDIO)) < 59


@pytest.mark.parametrize("block", [1, 1000, 1 << 20])
def test_blocks_of_any_size_give_the_same(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.wav", bursts(10, 0))
    expected = salient_starts(path, DATA, AUDIO)
    monkeypatch.setattr(module, "_BLOCK", block)
    assert salient_starts(path, DATA, AUDIO) == expected


def test_a_window_must_sound_in_every_channel(tmp_path: Path) -> None:
    samples = noise(4, 0)
    samples[2 * RATE :, 1] = 0
    path = write(tmp_path / "a.wav", samples)
    assert salient_starts(path, DATA, AUDIO) == [0, RATE // 2, RATE]


def test_what_lies_below_the_floor_is_silence(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(3, 0, 9e-4), subtype="FLOAT")
    assert salient_starts(path, DATA, AUDIO) == []
    lower = data_config(salient_floor=1e-5)
    assert salient_starts(path, lower, AUDIO) == [0, 4000, 8000, 12_000, 16_000]


def test_pieces_that_equal_the_threshold_do_not_exceed_it(tmp_path: Path) -> None:
    steady = write(tmp_path / "a.wav", np.full((3 * RATE, 2), 0.5))  # squares and sums are exact
    assert salient_starts(steady, DATA, AUDIO) == plain_starts(steady, RATE) == []


def test_a_stem_is_listed_where_it_sounds(tmp_path: Path) -> None:
    tracks = [write_song(tmp_path / "train" / f"s{i}", 2, i) for i in range(3)]
    write(tracks[1].stem("vocals"), np.zeros((2 * RATE, 2)))
    found = find_salient(tracks, DATA, AUDIO)
    assert [place.track.name for place in found["vocals"]] == ["s0", "s2"]
    assert [place.track.name for place in found["drums"]] == ["s0", "s1", "s2"]


def test_a_song_that_is_silent_in_all_stems_is_left_out_by_name(tmp_path: Path) -> None:
    tracks = [write_song(tmp_path / "train" / f"s{i}", 2, i) for i in range(3)]
    for stem in STEMS:
        write(tracks[1].stem(stem), np.zeros((2 * RATE, 2)))
    for stem in STEMS[1:]:
        write(tracks[2].stem(stem), np.zeros((2 * RATE, 2)))
    found = FoundTracks(tracks=tracks, left_out={"notes": "no audio files"})
    heard = salient_tracks(found, find_salient(tracks, DATA, AUDIO))
    assert str(heard) == "2 songs, 2 left out: notes (no audio files), s1 (no salient segments)"


def test_a_stem_silent_everywhere_is_an_error(tmp_path: Path) -> None:
    tracks = [write_song(tmp_path / "train" / f"s{i}", 2, i) for i in range(2)]
    for track in tracks:
        write(track.stem("bass"), noise(2, 0, 1e-4))
    with pytest.raises(DataError, match=r"bass has no salient segment .* add songs"):
        find_salient(tracks, DATA, AUDIO)


def test_all_unreadable_files_are_named_at_once(tracks: list[Track]) -> None:
    nan = noise(12, 0)
    nan[77] = np.nan
    soundfile.write(tracks[0].stem("vocals"), nan, RATE, subtype="FLOAT")
    tracks[1].stem("other").write_bytes(b"no audio")
    tracks[1].stem("drums").unlink()
    with pytest.raises(DataError) as error:
        find_salient(tracks, DATA, AUDIO)
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    for path in (tracks[0].stem("vocals"), tracks[1].stem("other"), tracks[1].stem("drums")):
        assert sum(str(path) in line for line in lines) == 1


def test_what_is_kept_is_found_without_reading_audio(tracks: list[Track]) -> None:
    expected = as_lists(find_salient(tracks, DATA, AUDIO))
    for track in tracks:
        spoil(track)
    assert as_lists(find_salient(tracks, DATA, AUDIO)) == expected


def test_a_search_is_announced_with_the_songs_that_are_not_kept(tracks: list[Track]) -> None:
    said: list[str] = []
    find_salient(tracks[:1], DATA, AUDIO, report=said.append)
    find_salient(tracks, DATA, AUDIO, report=said.append)
    find_salient(tracks, DATA, AUDIO, report=said.append)
    count = f"{len(tracks) - 1} song{'s' * (len(tracks) > 2)}"
    end = "for salient segments; the result is kept for the next run."
    assert said == [f"Searching 1 song {end}", f"Searching {count} {end}"]


@pytest.mark.parametrize("change", ["size", "later", "earlier", "parameter", "chunk", "stems"])
def test_what_was_kept_for_something_else_is_not_used(tracks: list[Track], change: str) -> None:
    find_salient(tracks, DATA, AUDIO)
    data, audio = DATA, AUDIO
    for track in tracks:
        spoil(track)
    path = tracks[0].stem("bass")
    if change == "size":
        before = path.stat()
        path.write_bytes(path.read_bytes() + b"\xff")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change in ("later", "earlier"):
        time_ns = path.stat().st_mtime_ns + (10**9 if change == "later" else -(10**9))
        os.utime(path, ns=(time_ns, time_ns))
    elif change == "parameter":
        data = data_config(salient_quantile=0.2)
    elif change == "chunk":
        audio = replace(AUDIO, chunk_s=2)
    else:
        data = data_config(stems=("vocals", "bass"))
    with pytest.raises(DataError, match=r"bass\.wav cannot be read"):  # it was read
        find_salient(tracks, data, audio)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\x00", b"null", b"[1]", b'{"vocals": ["a"]}']
)
def test_a_damaged_cache_is_made_anew(tracks: list[Track], content: bytes) -> None:
    expected = as_lists(find_salient(tracks, DATA, AUDIO))
    for path in cache_files(tracks):
        path.write_bytes(content)
    assert as_lists(find_salient(tracks, DATA, AUDIO)) == expected
    assert all(json.loads(path.read_text())["drums"] for path in cache_files(tracks))


def test_with_a_cache_folder_nothing_is_written_beside_the_data(
    tracks: list[Track], tmp_path: Path
) -> None:
    before = sorted((tmp_path / "root").rglob("*"))
    expected = as_lists(find_salient(tracks, DATA, AUDIO, tmp_path / "cache" / "deep"))
    assert sorted((tmp_path / "root").rglob("*")) == before
    for track in tracks:
        spoil(track)
    found = find_salient(tracks, DATA, AUDIO, tmp_path / "cache" / "deep")
    assert as_lists(found) == expected


def test_data_folders_may_share_a_cache_folder(tmp_path: Path) -> None:
    first = write_song(tmp_path / "a" / "train" / "song", 12, 0, make=bursts)
    second = write_song(tmp_path / "b" / "train" / "song", 12, 1, make=bursts)
    alone = [as_lists(find_salient([t], DATA, AUDIO, None)) for t in (first, second)]
    for _ in range(2):
        for track, expected in zip((first, second), alone, strict=True):
            found = find_salient([track], DATA, AUDIO, tmp_path / "cache")
            assert as_lists(found) == expected


def test_a_data_folder_that_cannot_be_written_causes_one_warning(
    tracks: list[Track], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = as_lists(find_salient(tracks, DATA, AUDIO, tmp_path / "cache"))
    (tmp_path / "root" / CACHE_FOLDER).write_text("a file where the folder would be")
    with caplog.at_level(logging.WARNING):
        assert as_lists(find_salient(tracks, DATA, AUDIO, tmp_path / "cache")) == expected
        assert not caplog.records
        assert as_lists(find_salient(tracks, DATA, AUDIO)) == expected
    assert len(caplog.records) == 1
    assert "--cache names a writable folder" in caplog.text


def test_threads_find_the_same_in_the_same_order(tracks: list[Track], tmp_path: Path) -> None:
    one, three = (
        find_salient(tracks, DATA, AUDIO, tmp_path / str(jobs), jobs=jobs) for jobs in (1, 3)
    )
    assert as_lists(one) == as_lists(three)
    assert [list(places) for places in as_lists(three).values()] == [["s0", "s1"]] * len(STEMS)
