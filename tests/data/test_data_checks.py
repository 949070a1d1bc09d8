"""Laws of the checks before training begins."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import encode, tones
from noise_songs import AUDIO, DATA, RATE, STEMS, noise, write, write_song, write_songs

from bsmamba2.data.checks import check_tracks
from bsmamba2.data.tracks import find_tracks
from bsmamba2.errors import DataError

ALL = ("train", "valid", "test")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_songs(tmp_path / "root", train=3, valid=1, test=1)


def check(root: Path, *splits: str) -> None:
    check_tracks(root, splits or ALL, DATA, AUDIO)


def problems(root: Path, *splits: str) -> list[str]:
    with pytest.raises(DataError) as error:
        check(root, *splits)
    first, *lines = str(error.value).splitlines()
    count = f"{len(lines)} problem" + "s" * (len(lines) != 1)
    assert first == f"{root} cannot be used ({count}):"
    return lines


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def spoil_header(path: Path) -> None:
    path.write_bytes(b"\xff" * path.stat().st_size)


def forget_length(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = struct.pack("<I", 0)
    path.write_bytes(content)


def put_nan(path: Path) -> None:
    samples = noise(4, 0)
    samples[100, 1] = np.nan
    soundfile.write(path, samples, RATE, subtype="FLOAT")


def rewrite(samples: np.ndarray, rate: int = RATE) -> Callable[[Path], None]:
    return lambda path: soundfile.write(path, samples, rate)


def lossy(path: Path) -> None:
    """Puts MP3 into the place of a WAV file."""
    soundfile.write(path, noise(4, 0), RATE, format="MP3", subtype="MPEG_LAYER_III")


def ambiguous(path: Path) -> None:
    soundfile.write(path.with_name("bass.flac"), noise(4, 0), RATE)


def nameless(path: Path) -> None:
    for file in path.parent.iterdir():
        file.rename(file.with_name(f"01 {file.name}"))


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (Path.unlink, "is missing"),
    (truncate, "is truncated"),
    (spoil_header, "is not audio or is damaged"),
    (lambda path: path.write_bytes(b""), "is empty"),
    (forget_length, "more samples than its header states"),
    (rewrite(noise(4, 0), 44100), "has a sample rate of 44100 Hz instead of 8000 Hz"),
    (rewrite(noise(4, 0)[:, :1]), "has 1 channel instead of 2"),
    (rewrite(noise(4, 0)[:0]), "holds no samples"),
    (rewrite(noise(3, 0)), "has 24000 samples, but the song's other files have 32000"),
    (put_nan, "holds NaN or infinite samples"),
    (lossy, "replace it by a FLAC or WAV file"),
]


def test_good_songs_pass(root: Path) -> None:
    check(root)
    check(root)


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=[said for _, said in DAMAGES])
def test_each_damage_is_reported_with_its_path(
    root: Path, damage: Callable[[Path], None], said: str
) -> None:
    path = root / "train" / "train song 1" / "bass.wav"
    damage(path)
    (line,) = problems(root)
    assert line.startswith(str(path))
    assert said in line


def test_files_that_are_no_stem_or_one_too_many_are_one_problem_of_their_folder(root: Path) -> None:
    folders = [root / "train" / f"train song {number}" for number in range(2)]
    ambiguous(folders[0] / "bass.wav")
    nameless(folders[1] / "bass.wav")
    assert problems(root) == [
        f"{folders[0]} holds bass.flac and bass.wav: keep one file of bass.",
        f"{folders[1]} holds audio files, but none is called mixture, vocals, drums, bass or "
        "other: rename them, or put the folder elsewhere.",
    ]


@pytest.mark.parametrize("suffix", [".m4a", ".mp3", ".ogg"])
def test_a_format_without_exact_seeks_is_a_problem_with_its_cure(root: Path, suffix: str) -> None:
    path = root / "train" / "train song 0" / f"bass{suffix}"
    if suffix == ".m4a":
        pytest.importorskip("av")
        encode(path, "aac", tones(4 * RATE, 2))
    else:
        write(path, noise(4, 0), subtype={".mp3": "MPEG_LAYER_III", ".ogg": "VORBIS"}[suffix])
    path.with_suffix(".wav").unlink()
    (line,) = problems(root)
    assert line.startswith(f"{path} is in a format in which training cannot read segments")


def test_flac_and_aiff_of_any_case_pass(tmp_path: Path) -> None:
    for number, suffix in enumerate((".flac", ".FLAC", ".aiff", ".WAV")):
        write_song(tmp_path / "train" / f"song {number}", 4, number, suffix=suffix)
    check(tmp_path, "train")


def test_a_truncated_flac_is_reported_where_only_its_header_is_read(tmp_path: Path) -> None:
    song = write_song(tmp_path / "valid" / "song", 4, 0, suffix=".flac")
    truncate(song.stem("vocals"))
    (line,) = problems(tmp_path, "valid")
    assert f"{song.stem('vocals')} is truncated or damaged" in line


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    root = write_songs(tmp_path / "root", train=len(DAMAGES), valid=1)
    for track in find_tracks(root, "train", DATA).tracks:  # one stem is silent everywhere too
        write(track.stem("other"), np.zeros((4 * RATE, 2)))
    expected = {"other has no salient segment", "is missing, which should contain"}
    for number, (damage, said) in enumerate(DAMAGES):
        damage(root / "train" / f"train song {number}" / f"{STEMS[number % 3]}.wav")
        expected.add(said)
    (root / "valid" / "valid song 0" / "drums.wav").unlink()
    lines = problems(root)
    assert len(lines) == len(DAMAGES) + 3
    for said in expected:
        assert any(said in line for line in lines)
    assert any(str(root / "valid" / "valid song 0" / "drums.wav") in line for line in lines)


def test_the_mixture_matters_where_it_is_read(root: Path) -> None:
    for split in ALL:
        (root / split / f"{split} song 0" / "mixture.wav").unlink()
    check(root, "train")
    assert [Path(line.split(" is missing")[0]).parts[-3:-1] for line in problems(root)] == [
        (split, f"{split} song 0") for split in ("valid", "test")
    ]


def test_a_stem_is_reported_if_silent_in_all_songs_but_not_in_one(root: Path) -> None:
    songs = find_tracks(root, "train", DATA).tracks
    for song in songs[1:]:
        write(song.stem("drums"), np.zeros((4 * RATE, 2)))
    check(root)
    write(songs[0].stem("drums"), np.zeros((4 * RATE, 2)))
    (line,) = problems(root)
    assert line.startswith("drums has no salient segment")
    assert str(root / "train") in line


@pytest.mark.parametrize("splits", [("train",), ALL])
def test_a_folder_that_is_not_a_data_set_is_reported_once(
    tmp_path: Path, splits: tuple[str]
) -> None:
    (line,) = problems(tmp_path / "nowhere", *splits)
    assert "No data folder" in line
