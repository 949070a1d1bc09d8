"""Files joined in one are read to the end of the last; nothing else is taken for a second file."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from audio_files import RATE, mux, noise, read

from bsmamba2.errors import AudioError, MissingExtraError
from bsmamba2.runtime.audio.joints import find_starts
from bsmamba2.runtime.audio.reader import AudioReader, Section
from bsmamba2.runtime.audio.riff import find_wav_data

BY_SOUNDFILE = {  # suffix -> format, subtype, order of bytes
    "wav": ("WAV", "PCM_16", None),
    "rifx": ("WAV", "PCM_24", "BIG"),
    "rf64": ("RF64", "FLOAT", None),
    "w64": ("W64", "PCM_16", None),
    "flac": ("FLAC", "PCM_16", None),
    "mp3": ("MP3", "MPEG_LAYER_III", None),
    "ogg": ("OGG", "VORBIS", None),
    "opus": ("OGG", "OPUS", None),
    "aiff": ("AIFF", "PCM_16", None),
    "caf": ("CAF", "PCM_16", None),
    "au": ("AU", "FLOAT", None),
}
BY_PYAV = {  # suffix -> format, codec, and options
    "m4a": ("ipod", "aac", {}),
    "mov": ("mov", "pcm_s16le", {}),
    "fragments.mp4": ("mp4", "aac", {"movflags": "frag_every_frame+empty_moov"}),
    "mka": ("matroska", "flac", {}),
    "webm": ("webm", "libopus", {}),
    "wma": ("asf", "wmav2", {}),
    "flv": ("flv", "aac", {}),
    "tta": ("tta", "tta", {}),
    "wv": ("wv", "wavpack", {}),
    "oga": ("ogg", "flac", {}),
    "tagged.mp3": ("mp3", "libmp3lame", {}),
    "aac": ("adts", "aac", {}),
    "ac3": ("ac3", "ac3", {}),
    "mp2": ("mp2", "mp2", {}),
    "ts": ("mpegts", "aac", {}),
    "mpg": ("mpeg", "mp2", {}),
    "avi": ("avi", "libmp3lame", {}),
    "live.mka": ("matroska", "flac", {"live": "1"}),
}
UNBROKEN = ("aac", "ac3", "mp2", "ts", "mpg", "avi", "live.mka")
"""Formats whose frames go on: a decoder reads them to the end, and there is no joint to find."""


def song(n: int) -> np.ndarray:
    """Low noise (2, n), which lossy formats preserve; different for each n."""
    smooth = np.ones(16) / 4
    return np.stack([np.convolve(channel, smooth, "same") for channel in noise(n)]).astype(
        np.float32
    )


def encoded(kind: str, samples: np.ndarray, rate: int = 48_000) -> bytes:
    """A file of that kind, with a title where the format has one."""
    file: Any = io.BytesIO()
    if kind in BY_SOUNDFILE:
        format, subtype, order = BY_SOUNDFILE[kind]
        soundfile.write(file, samples.T, rate, subtype, order, format)
        return file.getvalue()
    av = pytest.importorskip("av")
    format, codec, options = BY_PYAV[kind]
    with av.open(file, "w", format=format, options=options) as container:
        container.metadata["title"] = "A title"
        stream = container.add_stream(codec, rate=rate, layout="stereo")
        frame = av.AudioFrame.from_ndarray(samples, "fltp", "stereo")
        frame.sample_rate, frame.pts = rate, 0
        stream.bit_rate = 128_000
        stream.codec_context.open()
        resampler = av.AudioResampler(stream.format, "stereo", rate, stream.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(part))
    return file.getvalue()


def starts(content: bytes) -> list[int]:
    return find_starts(io.BufferedReader(io.BytesIO(content)))


def place_of(part: np.ndarray, whole: np.ndarray) -> int:
    """The sample of `whole` at which `part` begins, which must sound there."""
    inner = part[0, 1000:-1000]
    products = np.correlate(whole[0], inner, "valid")
    at = int(products.argmax())
    energies = np.linalg.norm(whole[0, at : at + inner.size]) * np.linalg.norm(inner)
    assert products[at] > 0.7 * energies
    return at - 1000


def joined(path: Path, files: list[bytes]) -> Path:
    path.write_bytes(b"".join(files))
    return path


class Counting(io.BytesIO):
    """Counts the bytes that are read."""

    count = 0

    def readinto(self, buffer: Any) -> int:
        size = super().readinto(buffer)
        self.count += size
        return size


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_a_long_flac_is_seen_to_be_one_file_without_reading_all_of_it(subtype: str):
    kinds = [(song(900_000), 48_000), (song(900_000)[:, ::-1], 48_000), (song(5000), 37_000)]
    files = []
    for samples, rate in kinds:
        soundfile.write(file := io.BytesIO(), samples.T, rate, subtype, format="FLAC")
        files.append(file.getvalue())
    one = Counting(files[0])
    assert find_starts(io.BufferedReader(one, 1 << 16)) == [0]
    assert one.count < len(files[0]) / 2
    assert starts(files[0] + files[0]) == [0, len(files[0])]  # the last frame is alike, too
    assert starts(files[0] + files[1]) == [0, len(files[0])]
    assert starts(files[0] + files[2]) == [0, len(files[0])]
    assert starts(files[2] + files[0]) == [0, len(files[2])]
    assert len(starts(encoded("flac", song(40_000)) * 17)) == 17  # one more than places to look at


@pytest.mark.parametrize("kind", sorted({*BY_SOUNDFILE, *BY_PYAV} - {*UNBROKEN}))
def test_joined_files_are_read_one_after_the_other(tmp_path: Path, kind: str):
    songs = [song(n) for n in (8000, 9000, 7000)]
    files = [encoded(kind, samples) for samples in songs]
    assert starts(b"".join(files)) == [0, len(files[0]), len(files[0] + files[1])]
    single = [read(joined(tmp_path / f"{n}.{kind}", [file])) for n, file in enumerate(files)]
    path = joined(tmp_path / f"joined.{kind}", files)
    assert np.array_equal(read(path), np.concatenate(single, axis=1))
    if kind in BY_SOUNDFILE:
        with AudioReader(path) as reader:
            assert (reader.frames, reader.exact) == (24_000, True)


@pytest.mark.parametrize("kind", UNBROKEN)
def test_frames_that_go_on_are_read_to_the_end(tmp_path: Path, kind: str):
    songs = [song(n) for n in (8000, 9000, 7000)]
    files = [encoded(kind, samples) for samples in songs]
    assert starts(b"".join(files)) == [0]
    found = read(joined(tmp_path / f"joined.{kind}", files))
    gaps = np.diff([place_of(samples, found) for samples in songs]) - [8000, 9000]
    assert (gaps >= 0).all()  # padding of last frames
    assert (gaps <= 3 * 1536).all()


@pytest.mark.parametrize("kind", ["ogg", "mp3", "wav"])
def test_a_section_of_joined_files_is_a_slice_of_them(tmp_path: Path, kind: str):
    path = joined(tmp_path / f"joined.{kind}", [encoded(kind, song(n)) for n in (8000, 9000)])
    with AudioReader(path, section=Section(0.15, 0.1)) as reader:
        found = np.concatenate(list(reader.blocks()), axis=1)
    assert np.array_equal(found, read(path)[:, 7200:12_000])


ID3V1 = b"TAG" + bytes(125)
ID3V2 = b"ID3\4\0\0\0\0\2\0" + bytes(256)
APE_ITEM = struct.pack("<II", 3, 0) + b"Title\0" + b"\xff\xfb\x90"
APE_SIZES = struct.pack("<III", 2000, len(APE_ITEM) + 32, 1)
APE = (
    *(b"APETAGEX" + APE_SIZES + b"\0\0\0\xa0" + bytes(8) + APE_ITEM),
    *(b"APETAGEX" + APE_SIZES + b"\0\0\0\x80" + bytes(8)),
)
LYRICS = b"LYRICSBEGINLYR00005Hello000014LYRICS200"
ENDS = (b"", ID3V1, bytes(APE), bytes(APE) + ID3V1, LYRICS + ID3V1, bytes(3000), ID3V2, b"\xff" * 9)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("begin", [b"", ID3V2, ID3V2 + ID3V2])
def test_mp3s_are_joined_with_their_tags(tmp_path: Path, begin: bytes, end: bytes):
    files = [begin + encoded("mp3", song(n)) + end for n in (8000, 9000)]
    assert starts(files[0]) == [0]
    found = read(joined(tmp_path / "joined.mp3", files))
    assert found.shape[1] == 17_000
    assert [place_of(song(n), found) for n in (8000, 9000)] == [0, 8000]


def headless(*, loud_first: bool, variable: bool) -> tuple[bytes, int]:
    """An MP3 of noise that states no length, and its number of frames."""
    av = pytest.importorskip("av")
    samples = noise(5 * RATE) * ((np.arange(5 * RATE) < 2 * RATE) == loud_first)
    file = io.BytesIO()
    quality = {"flags": "+qscale", "global_quality": "472"} if variable else {}
    with av.open(file, "w", "mp3", options={"write_xing": "0", "id3v2_version": "0"}) as container:
        mux(container, container.add_stream("libmp3lame", RATE, quality, layout="stereo"), samples)
    return file.getvalue(), 5 * RATE // 1152 + 2


@pytest.mark.parametrize("variable", [False, True])
@pytest.mark.parametrize("between", [b"", ID3V1, ID3V1 + ID3V2], ids=["", "ID3v1", "both"])
def test_mp3s_without_length_are_read_to_the_end_of_the_last(
    tmp_path: Path, variable: bool, between: bytes
):
    content, frames = headless(loud_first=True, variable=variable)
    path = joined(tmp_path / "joined.mp3", [content, between, content])
    assert abs(read(path).shape[1] // 1152 - 2 * frames) <= 4


@pytest.mark.parametrize("loud_first", [False, True])
def test_without_pyav_an_mp3_without_length_is_read_if_its_bit_rate_is_constant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loud_first: bool
):
    content, frames = headless(loud_first=loud_first, variable=False)
    varied, _ = headless(loud_first=loud_first, variable=True)
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "a.mp3"
    path.write_bytes(content + ID3V1)
    assert abs(read(path).shape[1] // 1152 - frames) <= 2
    path.write_bytes(varied)
    with pytest.raises(MissingExtraError, match=r"does not state its length.*bsmamba2\[av\]"):
        read(path)


@pytest.mark.parametrize("kind", ["ogg", "opus"])
@pytest.mark.parametrize("between", ["cut", "tag"])
def test_a_chain_goes_on_after_a_page_that_is_cut_off(tmp_path: Path, kind: str, between: str):
    first, second = (encoded(kind, song(n)) for n in (24_000, 9000))
    first = first[:-500] if between == "cut" else first + ID3V1
    assert starts(first) == [0]
    assert starts(first + second) == [0, len(first)]
    found = read(joined(tmp_path / f"joined.{kind}", [first, second]))
    assert np.array_equal(found[:, -9000:], read(joined(tmp_path / f"b.{kind}", [second])))


def test_a_file_of_odd_length_may_lack_the_padding_at_its_end():
    wav = io.BytesIO()
    with wave.open(wav, "wb") as writer:  # which writes none
        writer.setparams((1, 1, RATE, 0, "NONE", ""))
        writer.writeframes(bytes(1001))
    w64 = io.BytesIO()
    soundfile.write(w64, np.zeros(1001), RATE, "PCM_U8", format="W64")
    for content in (wav.getvalue(), w64.getvalue()):
        assert len(content) % 2
        assert starts(content * 3) == [0, len(content), 2 * len(content)]


@pytest.mark.parametrize("kind", ["wav", "aiff"])
def test_a_file_is_found_after_one_that_was_cut_off(tmp_path: Path, kind: str):
    content = encoded(kind, song(8000))
    assert starts(content[:-300] + content) == [0, len(content) - 300]
    assert starts(content[:-300]) == [0]
    if kind == "wav":
        with pytest.raises(AudioError, match=r"file 1 of 2 in it\) is truncated"):
            read(joined(tmp_path / "joined.wav", [content[:-300], content]))


def test_only_one_of_many_joined_files_is_open_at_once(tmp_path: Path):
    path = joined(tmp_path / "joined.wav", [encoded("wav", song(100))] * 300)
    tracemalloc.start()
    try:
        with AudioReader(path) as reader:
            assert sum(block.shape[1] for block in reader.blocks()) == 30_000
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()


def test_the_samples_of_a_wav_are_not_looked_for_without_end():
    file = io.BufferedReader(io.BytesIO(b"RIFF\0\0\0\0WAVE" + bytes(1 << 20)))
    assert find_wav_data(file) is None
    assert file.tell() < 1 << 17


def test_joined_files_of_different_form_are_refused(tmp_path: Path):
    first = encoded("ogg", song(8000))
    other_rate = encoded("ogg", song(9000), 44_100)
    mono = encoded("ogg", song(9000)[:1])
    for second, form in ((other_rate, "44100 Hz and 2"), (mono, "48000 Hz and 1")):
        path = joined(tmp_path / "joined.ogg", [first, second])
        with pytest.raises(AudioError, match=f"and file 2 has {form} channels, but the first has"):
            read(path)


def test_damage_names_the_file_that_has_it(tmp_path: Path):
    content = encoded("flac", song(9000))
    path = joined(tmp_path / "joined.flac", [content, content[: len(content) // 2]])
    with pytest.raises(AudioError, match=r"joined\.flac \(file 2 of 2 in it\) is truncated"):
        read(path)


def chunk(name: bytes, body: bytes, order: str = "<") -> bytes:
    return name + struct.pack(f"{order}I", len(body)) + body + bytes(len(body) % 2)


def with_picture(flac: bytes) -> bytes:
    """A FLAC with a picture that holds a FLAC header."""
    picture = b"fLaC\0\0\0\x22" * 9
    block = b"\x06" + len(picture).to_bytes(3, "big") + picture
    return flac[:42] + block + flac[42:]


def single_files() -> dict[str, bytes]:
    wav, flac, m4a = (encoded(kind, song(8000)) for kind in ("wav", "flac", "m4a"))
    riff = wav[:4] + struct.pack("<I", len(wav) + 4992) + wav[8:]
    more = chunk(b"LIST", b"INFO" + bytes(77)) + chunk(b"id3 ", ID3V2) + chunk(b"cue ", bytes(28))
    aiff = encoded("aiff", song(8000))
    return {
        "chunks after the samples": wav + more,
        "a wrong length of the whole": wav[:4] + bytes(4) + wav[8:] + more,
        "zeros after the samples": riff + bytes(5000),
        "text after the samples": wav + b"RIFF and WAVE are words. " * 99,
        "an AIFF with chunks": aiff + chunk(b"ID3 ", ID3V2, ">") + chunk(b"ANNO", b"x", ">"),
        "a FLAC after an ID3 tag": ID3V2 + flac + ID3V1,
        "a picture": with_picture(flac),
        "free space and a uuid": m4a + struct.pack(">I4s", 16, b"free") + bytes(8)
        + struct.pack(">I4s", 24, b"uuid") + bytes(16),
        "a second ftyp only": m4a + m4a[:28],
        "a WavPack with tags": encoded("wv", song(8000)) + bytes(APE) + ID3V1,
        "a TTA with tags": encoded("tta", song(8000)) + bytes(APE) + ID3V1,
    }  # fmt: skip


def test_what_else_follows_a_file_is_no_second_one():
    pytest.importorskip("av")
    wrong = {name: at for name, content in single_files().items() if (at := starts(content)) != [0]}
    assert wrong == {}


@pytest.mark.parametrize("kind", [*BY_SOUNDFILE, *BY_PYAV])
def test_damaged_files_end_the_search(kind: str):
    """Whatever the numbers in a file are, the search goes forward to its end."""
    intact = encoded(kind, song(2000)) * 2
    for seed in range(12):
        rng, content = np.random.default_rng(seed), bytearray(intact)
        for place in rng.integers(0, (100, len(content))[seed % 2], 20):
            content[place] = rng.choice([0, 1, 0x7F, 0xFF, rng.integers(256)])
        found = starts(bytes(content[: rng.integers(1, len(content))]))
        assert found[0] == 0
        assert found == sorted(set(found))


def test_two_streams_side_by_side_in_an_ogg_are_one_file():
    av = pytest.importorskip("av")
    file: Any = io.BytesIO()
    with av.open(file, "w", format="ogg") as container:
        streams = [container.add_stream("libopus", rate=48_000, layout="stereo") for _ in "ab"]
        for at in range(0, 9600, 960):
            for stream in streams:
                frame = av.AudioFrame.from_ndarray(song(960), "fltp", "stereo")
                frame.sample_rate, frame.pts = 48_000, at
                stream.codec_context.open(strict=False)
                resampled = av.AudioResampler(stream.format, "stereo", 48_000).resample(frame)
                container.mux([p for part in resampled for p in stream.encode(part)])
    assert file.getvalue().count(b"OpusHead") == 2
    assert starts(file.getvalue()) == [0]
