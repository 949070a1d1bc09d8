"""Reading yields what a header promises or fails with one sentence; so does writing."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import ENCODINGS, RATE, damaged, endless_rifx, noise, read, save, tones
from processes import printed

from bsmamba2.errors import AudioError, BsmError
from bsmamba2.runtime.audio import writing
from bsmamba2.runtime.audio.reader import AudioReader, Section
from bsmamba2.runtime.audio.resampling import resample
from bsmamba2.runtime.audio.writing import AudioWriter, OutputFormat

# --- reading ---


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("n", [1, 3 * RATE])
def test_reader_gives_what_libsndfile_decodes(tmp_path: Path, name: str, channels: int, n: int):
    path = save(tmp_path / name, noise(n, channels))
    with AudioReader(path) as reader:
        assert (reader.sample_rate, reader.channels, reader.frames) == (RATE, channels, n)
        samples = np.concatenate(list(reader.blocks()), axis=1)
    assert samples.dtype == np.float32
    expected = soundfile.read(path, dtype="float32", always_2d=True)[0].T
    if name.endswith(".mp3"):  # read by FFmpeg
        assert np.abs(samples - expected).max() < 5e-6 or n == 1
    else:
        assert np.array_equal(samples, expected)


@pytest.mark.parametrize("name", ["a.wav", "b.wav", "b.flac", "a.mp3"])
@pytest.mark.parametrize("cut", [0.001, 0.5, 0.9])
def test_truncated_files_are_refused(tmp_path: Path, name: str, cut: float):
    path = damaged(save(tmp_path / name, noise()), cut=cut)
    with pytest.raises(AudioError, match=r"truncated|damaged") as error:
        read(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("data_size", [0, 0xFFFFFFFF, 0x7FFFF000, 0x80000000])
@pytest.mark.parametrize("file_size", [0, 0xFFFFFFFF, 36])
@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_16"])
def test_wav_written_into_a_pipe_is_read_to_its_end(
    tmp_path: Path, data_size: int, file_size: int, subtype: str
):
    path = save(tmp_path / "piped.wav", noise(), subtype=subtype)
    expected = soundfile.read(path, dtype="float32")[0].T
    content = bytearray(path.read_bytes())
    place = content.find(b"data") + 4
    content[4:8] = struct.pack("<I", file_size)
    content[place : place + 4] = struct.pack("<I", data_size)
    path.write_bytes(content)
    assert np.array_equal(read(path), expected)


@pytest.mark.parametrize("data_size", [0, 0xFFFFFFFF, 0x7FFFF000, (5 << 30) - (1 << 32)])
def test_wav_of_more_than_its_header_can_say_is_read_to_its_end(tmp_path: Path, data_size: int):
    """5 GB of silence in a sparse file, and a second of noise at the end."""
    path = save(tmp_path / "long.wav", np.zeros((2, 1)), subtype="FLOAT")
    head = path.read_bytes()
    head = head[: head.index(b"data") + 4] + struct.pack("<I", data_size)
    path.write_bytes(head[:4] + struct.pack("<I", max(0, data_size - 8)) + head[8:])
    end = noise(RATE).astype(np.float32)
    with path.open("r+b") as file:
        file.truncate(len(head) + (5 << 30))
        file.seek(-end.nbytes, os.SEEK_END)
        file.write(end.T.tobytes())
    with AudioReader(path) as reader:
        assert reader.frames == (5 << 30) // 8
    section = Section(reader.frames / RATE - 2)
    with AudioReader(path, section=section) as reader:
        heard = np.concatenate(list(reader.blocks()), axis=1)
    assert np.array_equal(heard[:, -RATE:], end)
    assert not heard[:, :-RATE].any()


def test_titles_after_the_samples_are_no_samples(tmp_path: Path):
    path = save(tmp_path / "titled.wav", noise(), subtype="PCM_16")
    expected = soundfile.read(path, dtype="float32")[0].T
    with path.open("ab") as file:
        file.write(b"LIST" + struct.pack("<I", 5000) + bytes(5000))
    assert np.array_equal(read(path), expected)


def test_rf64_is_read_and_missed_when_truncated(tmp_path: Path):
    path = tmp_path / "long.wav"
    soundfile.write(path, noise().T, RATE, format="RF64", subtype="FLOAT")
    assert np.array_equal(read(path), noise())
    with pytest.raises(AudioError, match="truncated"):
        read(damaged(path, cut=0.5))


def test_flac_written_into_a_pipe_is_read_to_its_end(tmp_path: Path):
    path = save(tmp_path / "b.flac", noise())
    expected = read(path)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # clears the 36-bit number of samples: unknown
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with AudioReader(path) as reader:
        assert reader.frames is None
    assert np.array_equal(read(path), expected)


def test_missing_files_and_folders_are_errors(tmp_path: Path):
    for path in (tmp_path, tmp_path / "missing.wav", Path("/dev/zero")):
        with pytest.raises(BsmError, match=str(path)):
            read(path)


def broken(path: Path, kind: str) -> Path:
    """Makes a file that cannot be read to its end; `kind` has the format's suffix."""
    name, samples, rate = Path(kind).stem, noise(), RATE
    match name:
        case "not there":
            return path
        case "empty" | "text" | "RIFX":
            contents = {"text": b"This is a text.\n" * 1000, "RIFX": endless_rifx()}
            path.write_bytes(contents.get(name, b""))
            return path
        case "3 channels":
            samples = noise(RATE, 3)
        case "nothing":
            samples = noise(0)
        case "nan" | "inf" | "1e11":
            samples[1, 100_000] = float(name)
        case "999 Hz" | "768001 Hz":
            rate = int(name.split()[0])
    save(path, samples, rate, "FLOAT" if path.suffix == ".wav" else None)
    if name == "one sample less":
        path.write_bytes(path.read_bytes()[:-8])
    return damaged(path, cut=0.5) if name == "half" else damaged(path, hole=name == "hole")


@pytest.mark.parametrize(("kind", "words"), [
    ("not there.wav", "No such file: stdin"), ("empty.wav", "stdin is empty"),
    ("text.wav", "stdin is not audio"), ("text.m4a", "stdin is not audio"),
    ("RIFX.wav", "stdin does not state its length"), ("one sample less.wav", "is truncated"),
    ("half.wav", "stdin is truncated"), ("half.flac", "stdin is truncated"),
    ("half.mp3", "stdin is damaged"), ("hole.mp3", "stdin is damaged"),
    ("hole.flac", "stdin is damaged"), ("hole.ogg", "stdin is damaged"),
    ("3 channels.wav", "stdin has 3 channels"), ("nothing.wav", "stdin holds no samples"),
    ("nothing.ogg", "stdin holds no samples"), ("nan.wav", "stdin holds NaN .* at 2.268 s"),
    ("inf.wav", "stdin holds NaN .* at 2.268 s"), ("1e11.wav", "far above full scale at 2.268 s"),
    ("999 Hz.wav", "rate of 999 Hz"), ("768001 Hz.wav", "rate of 768001 Hz"),
    ("late start.wav", "stdin ends before the start at 4.00 s"),
    ("late start.mp3", "ends before the start at 4.00 s"),
])  # fmt: skip
@pytest.mark.parametrize("suffix", [True, False])
def test_what_cannot_be_read_is_a_sentence(tmp_path: Path, kind: str, words: str, suffix: bool):
    """The sentence uses the given name; a file copied from a pipe has no suffix."""
    path = broken(tmp_path / f"song{Path(kind).suffix}", kind)
    if not suffix and path.exists():
        path = path.rename(tmp_path / "stdin")
    section = Section(4 if kind.startswith("late") else 0)
    with (
        pytest.raises(BsmError, match=words) as error,
        AudioReader(path, section=section, name="stdin") as reader,
    ):
        list(reader.blocks())
    assert str(tmp_path) not in str(error.value)


# --- writing ---

FORMATS = [("wav", "16"), ("wav", "24"), ("wav", "float"), ("flac", "16"), ("flac", "24"),
           ("mp3", None), ("ogg", None)]  # fmt: skip
LOSS = {"16": 2**-16, "24": 2**-24, "float": 0, None: 0.05}


def write(path: Path, samples: np.ndarray, name: str, depth: str | None = None, rate: int = RATE,
          frames: int | None = None) -> Path:  # fmt: skip
    format = OutputFormat(name, depth)
    with AudioWriter(path, format, rate, samples.shape[0], frames=frames) as writer:
        for start in range(0, samples.shape[1], 50_000):
            writer.write(samples[:, start : start + 50_000])
    return path


@pytest.mark.parametrize(("name", "depth"), FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("n", [1, 150_000])
def test_written_files_hold_the_samples(
    tmp_path: Path, name: str, depth: str | None, channels: int, n: int
):
    samples = noise(n, channels) if depth else tones(n, channels)
    path = write(tmp_path / "out", samples, name, depth)
    found, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert (rate, found.shape) == (RATE, (n, channels))
    assert np.abs(found.T - samples).max() <= LOSS[depth]
    assert soundfile.info(path).format == name.upper()


@pytest.mark.parametrize(("name", "depth"), [("flac", "float"), ("mp3", "16"), ("ogg", "24"),
                                             ("aac", None), ("wav", "8")])  # fmt: skip
def test_impossible_formats_are_refused(name: str, depth: str | None):
    with pytest.raises(BsmError, match=name):
        OutputFormat(name, depth)


@pytest.mark.parametrize(("name", "rate"), [("mp3", 96_000), ("mp3", 7777), ("ogg", 200_001),
                                            ("flac", 655_360), ("flac", 65_537)])  # fmt: skip
def test_impossible_rates_are_refused(tmp_path: Path, name: str, rate: int):
    with pytest.raises(AudioError, match=f"{rate} Hz"):
        write(tmp_path / "out", noise(100), name, rate=rate)


@pytest.mark.parametrize(("name", "rate"), [("wav", 384_000), ("ogg", 200_000), ("flac", 655_350),
                                            ("mp3", 8000), ("flac", 65_535)])  # fmt: skip
def test_extreme_rates_are_written(tmp_path: Path, name: str, rate: int):
    path = write(tmp_path / "out", noise(5000), name, rate=rate)
    assert soundfile.info(path).samplerate == rate


def test_clipping_is_counted_where_it_happens(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    samples = noise(1000)
    samples[0, :7] = 1.5
    samples[1, :2] = -1.5
    path = write(tmp_path / "out", samples, "wav", "float")
    assert np.array_equal(read(path.rename(tmp_path / "a.wav")), samples)
    assert not caplog.records
    path = write(tmp_path / "out", samples, "wav", "16")
    assert "9 of 2000 samples" in caplog.text
    assert np.abs(soundfile.read(path)[0]).max() == 1  # not wrapped around


def test_a_wav_beyond_4_gb_becomes_rf64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writing, "_WAV_MAX_BYTES", 100_000)
    path = write(tmp_path / "out", noise(50_000), "wav", frames=50_000)
    assert soundfile.info(path).format == "RF64"
    assert np.array_equal(soundfile.read(path, dtype="float32")[0].T, noise(50_000))
    with pytest.raises(AudioError, match="4 GB"):
        write(tmp_path / "out", noise(50_000), "wav")


FULL_DISK = """
import resource, sys
import numpy as np
from pathlib import Path
from bsmamba2.errors import AudioError
from bsmamba2.runtime.audio.writing import AudioWriter, OutputFormat
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
noise = np.random.default_rng(0).standard_normal((2, 4096)).astype(np.float32) * 0.1
try:
    with AudioWriter(Path(sys.argv[1]), OutputFormat(sys.argv[2]), 44100, 2) as writer:
        for _ in range(int(sys.argv[4])):
            writer.write(noise)
except AudioError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("name", writing.FORMATS)
@pytest.mark.parametrize(("limit", "blocks"), [(0, 1), (50_000, 100), (3000, 8)])
def test_a_full_disk_is_noticed(tmp_path: Path, name: str, limit: int, blocks: int):
    said = printed(FULL_DISK, tmp_path / "out", name, str(limit), str(blocks))
    assert "File too large" in said


@pytest.mark.parametrize("name", writing.FORMATS)
def test_a_path_longer_than_libsndfile_takes_is_written(tmp_path: Path, name: str):
    folder = tmp_path.joinpath(*["x" * 200] * 6)
    folder.mkdir(parents=True)
    assert write(folder / f"out.{name}", noise(1000), name).stat().st_size > 0


# --- resampling ---


@pytest.mark.parametrize("rate", [48_000, 96_000, 22_050, 8_000, 44_100])
@pytest.mark.parametrize("block", [100, 65_536])
def test_there_and_back_a_sine_keeps_its_place_and_length(rate: int, block: int):
    t = np.arange(3 * rate) / rate
    fade = np.sin(np.pi / 2 * np.clip(np.minimum(t, t[-1] - t) / 0.3, 0, 1)) ** 4
    sine = (np.sin(2 * np.pi * 1000 * t) * fade).astype(np.float32)[None]
    blocks = (sine[:, start : start + block] for start in range(0, sine.shape[1], block))
    there = list(resample(blocks, channels=1, from_rate=rate, to_rate=RATE))
    assert sum(part.shape[1] for part in there) == 3 * RATE
    back = np.concatenate(list(resample(there, channels=1, from_rate=RATE, to_rate=rate)), axis=1)
    assert back.shape == sine.shape
    assert np.abs(back - sine).max() < 1e-6


def test_equal_rates_pass_blocks_on():
    blocks = [noise(10), noise(20)]
    passed = list(resample(blocks, channels=2, from_rate=48_000, to_rate=48_000))
    assert all(a is b for a, b in zip(passed, blocks, strict=True))


def test_integers_written_as_floats_are_read(tmp_path: Path):
    samples = np.full((1, 10), 2.0**31, np.float32)
    assert np.array_equal(read(save(tmp_path / "a.wav", samples)), samples)
