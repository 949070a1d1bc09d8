"""Pictures show a sound at its time and frequency, the brighter the louder it is."""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
import pytest

from bsmamba2.runtime.audio.pictures import (
    COLUMNS,
    HIGHEST_HZ,
    LOWEST_HZ,
    ROWS,
    SongPicture,
    Spectrogram,
    draw_spectrogram,
    png,
)

RATE = 44100


def test_silence_is_black_and_short_sounds_have_a_picture():
    assert not draw_spectrogram(np.zeros((2, RATE), np.float32), RATE).any()
    assert draw_spectrogram(np.ones((2, 5), np.float32), RATE).shape[0] == ROWS


def chunks_of(file: bytes) -> dict[bytes, bytes]:
    """The chunks of a PNG, whose checksums must be right."""
    chunks, at = {}, 8
    while at < len(file):
        length, kind = struct.unpack(">I4s", file[at : at + 8])
        data, crc = file[at + 8 : at + 8 + length], file[at + 8 + length : at + 12 + length]
        assert struct.unpack(">I", crc)[0] == zlib.crc32(kind + data)
        chunks[kind], at = data, at + 12 + length
    return chunks


def lines_of(file: bytes) -> np.ndarray:
    """The levels in a PNG of the package."""
    chunks = chunks_of(file)
    columns, rows = struct.unpack(">II", chunks[b"IHDR"][:8])
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8)
    return lines.reshape(rows, columns + 1)[:, 1:]


def test_a_png_holds_the_picture():
    picture = np.random.default_rng(0).integers(0, 64, (5, 7), dtype=np.uint8)
    file = png(picture, "A text")
    assert np.array_equal(lines_of(file), picture)
    assert len(chunks_of(file)[b"PLTE"]) == 3 * 64
    assert chunks_of(file)[b"tEXt"] == b"Description\0A text"


def row_of(hertz: float, highest_hz: float = HIGHEST_HZ) -> int:
    return ROWS - 1 - int(ROWS * math.log(hertz / LOWEST_HZ) / math.log(highest_hz / LOWEST_HZ))


def tone(hertz: float, seconds: float, rate: int = RATE) -> np.ndarray:
    wave = 0.1 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return wave.astype(np.float32)[None].repeat(2, axis=0)


@pytest.mark.parametrize("seconds", [1, 10, 40, 100])
def test_a_tone_stands_where_and_when_it_sounds(seconds: int):
    """The tone fills a fifth of the columns, whatever the song's length; the others are dark."""
    song = np.zeros((2, seconds * RATE), np.float32)
    song[:, : song.shape[1] // 2] = tone(300, seconds / 2)
    song[:, song.shape[1] // 2 :][:, : song.shape[1] // 5] = tone(3000, seconds / 5)
    picture = draw_spectrogram(song, RATE)
    bright = 0.8 * round((-20 + 90) / 75 * 63)
    edge = COLUMNS // 20 + math.ceil(4096 / RATE / seconds * COLUMNS)
    for hertz, first, last in ((300, 0, 0.5), (3000, 0.5, 0.7)):
        rows = picture[row_of(hertz) - 1 : row_of(hertz) + 2].max(axis=0)
        inside = slice(round(first * COLUMNS) + edge, round(last * COLUMNS) - edge)
        assert (rows[inside] >= bright).all()
        assert not rows[: max(0, round(first * COLUMNS) - edge)].any()
        assert (rows[round(last * COLUMNS) + edge :] < bright / 2).all()


@pytest.mark.parametrize("n", [1, 1023, 5000, 3 * RATE + 7])
def test_blocks_give_the_picture_of_the_whole(n: int):
    noise = np.random.default_rng(0).standard_normal((2, n)).astype(np.float32)
    spectrogram = Spectrogram(RATE)
    for start in range(0, n, 777):
        spectrogram.add(noise[:, start : start + 777])
    assert np.array_equal(spectrogram.picture(), draw_spectrogram(noise, RATE))


def test_joined_columns_have_their_mean_power():
    """Averaging columns of noise keeps its level and reduces its spread."""
    noise = np.random.default_rng(0).standard_normal((1, 80 * RATE)).astype(np.float32) * 0.1
    short, long = draw_spectrogram(noise[:, : 10 * RATE], RATE), draw_spectrogram(noise, RATE)
    assert abs(short.mean() - long.mean()) < 2
    assert long.std(axis=1).mean() < short.std(axis=1).mean()


def test_a_song_is_shown_below_its_mixture():
    picture = SongPicture(22050)
    for _ in range(3):
        voice, rest = tone(500, 1, 22050), tone(5000, 1, 22050)
        picture.add({"mixture": voice + rest, "vocals": voice, "instrumental": rest})
    file = picture.png()
    assert b"mixture, vocals, instrumental from top to bottom; 50 to 11025 Hz" in file
    levels = lines_of(file)
    assert levels.shape == (3 * ROWS + 4, COLUMNS)
    for index, tones in enumerate([(500, 5000), (500,), (5000,)]):
        part = levels[index * (ROWS + 2) :][:ROWS, COLUMNS // 2]
        for hertz in (500, 5000):
            row = row_of(hertz, 11025)
            assert (part[row - 1 : row + 2].max() > 50) == (hertz in tones)
