"""Laws of finding songs and of reading segments of them."""

from __future__ import annotations

import importlib.util
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from noise_songs import DATA, RATE, noise, write, write_song, write_songs
from processes import printed

from bsmamba2.data.tracks import VALIDATION_TRACKS, find_tracks, read_segment
from bsmamba2.errors import DataError


def names(root: Path, split: str) -> list[str]:
    return [track.name for track in find_tracks(root, split, DATA).tracks]


@pytest.fixture
def musdb_like(tmp_path: Path) -> Path:
    """The folder names of MUSDB18-HQ, with one tiny file in each."""
    for name in [*VALIDATION_TRACKS, "A Classic Education - NightOwl", "Zeno - Signs"]:
        write(tmp_path / "train" / name / "vocals.wav", noise(0.01, 0))
    write(tmp_path / "test" / "Al James - Schoolboy Facination" / "vocals.wav", noise(0.01, 0))
    return tmp_path


def test_validation_tracks_are_those_of_musdb() -> None:
    found = importlib.util.find_spec("musdb")  # its import would need ffmpeg
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs the musdb wheel, for its list of songs")
    path = Path(found.submodule_search_locations[0]) / "configs" / "mus.yaml"
    listed = yaml.safe_load(path.read_text("utf-8"))["validation_tracks"]
    assert len(listed) == len(VALIDATION_TRACKS) == 14
    assert set(listed) == VALIDATION_TRACKS


def test_musdb_is_split_by_its_own_list(musdb_like: Path) -> None:
    assert names(musdb_like, "train") == ["A Classic Education - NightOwl", "Zeno - Signs"]
    assert names(musdb_like, "valid") == sorted(VALIDATION_TRACKS)
    assert names(musdb_like, "test") == ["Al James - Schoolboy Facination"]


def test_a_folder_named_valid_replaces_the_list(musdb_like: Path) -> None:
    write(musdb_like / "valid" / "own" / "vocals.wav", noise(0.01, 0))
    assert names(musdb_like, "valid") == ["own"]
    assert set(names(musdb_like, "train")) > VALIDATION_TRACKS


def test_what_is_no_song_is_named_with_its_reason(tmp_path: Path) -> None:
    write_songs(tmp_path, train=2)
    train = tmp_path / "train"
    (train / "notes").mkdir()
    (train / "notes" / "read me.txt").write_text("no song")
    write(train / "album" / "song" / "vocals.wav", noise(0.01, 0))
    write(train / ".trash" / "vocals.wav", noise(0.01, 0))
    write(train / "loose.wav", noise(0.01, 0))
    write(train / "._loose.wav", noise(0.01, 0))
    write(train / "__MACOSX" / "._vocals.wav", noise(0.01, 0))
    (train / "away").symlink_to(tmp_path / "not mounted")
    (train / "read me.txt").write_text("no song")
    found = find_tracks(tmp_path, "train", DATA)
    assert [track.name for track in found.tracks] == ["train song 0", "train song 1"]
    assert found.left_out == {
        ".trash": "hidden",
        "__MACOSX": "no audio files",
        "album": "no audio files",
        "away": "broken link",
        "loose.wav": "not in a folder",
        "notes": "no audio files",
    }
    assert found.describe_left_out() == (
        "6 left out: .trash (hidden), __MACOSX (no audio files), album (no audio files), "
        "away (broken link), loose.wav (not in a folder), 1 more"
    )


def test_a_folder_is_left_out_of_one_split_only(musdb_like: Path) -> None:
    (musdb_like / "train" / "notes").mkdir()
    left_out = [find_tracks(musdb_like, split, DATA).left_out for split in ("train", "valid")]
    assert left_out == [{"notes": "no audio files"}, {}]


@pytest.mark.parametrize("suffix", [".wav", ".WAV", ".flac", ".FLAC", ".aiff", ".mp3"])
def test_a_stem_is_found_whatever_its_suffix_and_case(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "test" / "song" / f"Vocals{suffix}"
    write(path, noise(1, 0), subtype="MPEG_LAYER_III" if suffix == ".mp3" else "PCM_16")
    write(path.with_name("._Vocals.wav"), noise(0.01, 0))
    (track,) = find_tracks(tmp_path, "test", DATA).tracks
    assert track.stem("vocals") == path
    assert track.frames == RATE
    assert track.stem("bass") == path.with_name("bass.wav")  # none


@pytest.mark.parametrize("other", ["vocals.flac", "vocals.WAV", "Vocals.wav"])
def test_two_files_of_a_stem_are_an_error_that_names_both(tmp_path: Path, other: str) -> None:
    folder = tmp_path / "test" / "song"
    for name in ("vocals.wav", other):
        write(folder / name, noise(0.01, 0))
    (track,) = find_tracks(tmp_path, "test", DATA).tracks
    with pytest.raises(DataError, match="keep one file of vocals") as error:
        track.stem("vocals")
    assert "vocals.wav" in str(error.value)
    assert other in str(error.value)


def test_a_track_knows_its_files_and_length(tmp_path: Path) -> None:
    write_song(tmp_path / "test" / "song", 1.5, 0)
    (track,) = find_tracks(tmp_path, "test", DATA).tracks
    assert track.frames == 1.5 * RATE
    assert track.stem("bass") == tmp_path / "test" / "song" / "bass.wav"
    (track.folder / "mixture.wav").write_bytes(b"no audio")
    assert find_tracks(tmp_path, "test", DATA).tracks == [track]


@pytest.mark.parametrize(
    ("made", "split", "said"),
    [
        (None, "train", "No data folder"),
        (".", "train", "not laid out like MUSDB18-HQ"),
        ("songs/a/vocals.wav", "test", "not laid out like MUSDB18-HQ"),
        ("train/notes.txt", "train", "'train' is empty"),
        ("train/a/vocals.wav", "valid", "no validation songs: put some into"),
        ("train/Leaf - Summerghost/vocals.wav", "train", "'train' is empty"),
        ("train/a/vocals.wav", "dev", "No split 'dev'"),
        ("train/song.stem.wav", "train", r"1 left out: song.stem.wav \(not in a folder\)"),
    ],
)
def test_a_folder_of_another_layout_is_an_error_that_says_what_to_do(
    tmp_path: Path, made: str | None, split: str, said: str
) -> None:
    root = tmp_path / "data"
    if made is not None:
        (root / made).parent.mkdir(parents=True, exist_ok=True)
        root.mkdir(exist_ok=True)
        write(root / made, noise(0.01, 0)) if made.endswith("wav") else (root / made).touch()
    with pytest.raises(DataError, match=said):
        find_tracks(root, split, DATA)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_segment_is_the_slice_of_the_whole(tmp_path: Path, subtype: str) -> None:
    path = write(tmp_path / "a.wav", noise(1, 0), subtype=subtype)
    whole, _ = soundfile.read(path, dtype="float32", always_2d=True)
    for start, frames in [(0, 1), (0, RATE), (RATE - 1, 1), (123, 4567)]:
        segment = read_segment(path, start, frames)
        assert segment.dtype == np.float32
        assert np.array_equal(segment, whole.T[:, start : start + frames])


def test_reading_a_segment_takes_memory_for_the_segment_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(120, 0))  # 7.7 MB as float32
    tracemalloc.start()
    try:
        read_segment(path, 60 * RATE, RATE)
        assert tracemalloc.get_traced_memory()[1] < 5 * RATE * 2 * 4
    finally:
        tracemalloc.stop()


def test_what_cannot_be_read_is_an_error_with_the_path(tmp_path: Path) -> None:
    good = write(tmp_path / "good.wav", noise(1, 0))
    cut = tmp_path / "cut.wav"
    cut.write_bytes(good.read_bytes()[: RATE * 2])
    broken = noise(1, 0)
    broken[5] = np.nan
    nan = tmp_path / "nan.wav"
    soundfile.write(nan, broken, RATE, subtype="FLOAT")
    other = tmp_path / "other.wav"
    other.write_bytes(b"no audio at all")
    for path, start in [(good, 1), (good, 9 * RATE), (cut, 0), (nan, 0), (other, 0)]:
        with pytest.raises(DataError, match=path.name):
            read_segment(path, start, RATE)
    with pytest.raises(DataError, match=r"gone\.wav"):
        read_segment(tmp_path / "gone.wav", 0, 1)
    assert read_segment(nan, 6, RATE - 6).shape == (2, RATE - 6)


def test_finding_and_checking_songs_needs_no_torch() -> None:
    code = (
        "import sys, bsmamba2.data.tracks, bsmamba2.data.salience, bsmamba2.data.checks; "
        "sys.exit('torch' in sys.modules)"
    )
    printed(code)
