"""Audio cases: damaged, joined and misnamed files in every container, and hostile names."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from random import Random

import soundfile
from fuzz_bytes import HOSTILE_TEXTS, mutate_bytes
from fuzz_corpus import RATE, Case, Corpus, infer, put, song_seconds, tone

_RATES = (0, 1, 7, 100, 8000, 11_025, 48_000, 192_000, 768_000, 1 << 20, (1 << 31) - 1, 1 << 31)
_FLOATS = (  # NaN with and without payload, infinities, huge and tiny numbers
    *(0x7FC00000, 0x7F800001, 0xFFFFFFFF, 0x7F800000, 0xFF800000),
    *(0x7F7FFFFF, 0xFF7FFFFF, 0x00000001, 0x3F800000, 0x7E967699),
)
_TEMPLATES = (
    *("out/{track}/{stem}.{ext}", "out/{track}.{stem}.wav", "out/{track}{stem}{track}.flac"),
    *("out/{stem}.{ext}", "out/{track}.{ext}", "out/{track}", "out/", "", "{", "out/{0}.wav"),
    *("out/{track!r}.{stem}.wav", "out/{track:>900}{stem}.wav", "out/{nothing}.wav"),
    *("out/{stem.__class__}.wav", "out/{track}/{stem}.MP3", "out/{stem}/../{stem}.wav"),
    "out/" + "x" * 300 + "{stem}.wav",
)
_NAMES = (
    *("..wav", "...wav", "-rf.wav", " .wav", "a b.wav", "a\nb.wav", "a\tb.wav", "{track}.wav"),
    *("%s.wav", "é\u202e.wav", "\udcff\udcfe.wav", "CON.wav", "song", ".hidden.wav", "a\\b.wav"),
    *("n" * 250 + ".wav", "ä" * 120 + ".wav", "song.WAV", "song.wav.mp3", "~.wav", "$HOME.wav"),
)
_ADDRESSES = (  # before the name of a song that is there, too
    *("file:", "Prince:", "04:23:", "concat:decoy.m4a|", "subfile,,start,0,end,999,,:", "data:"),
    *("pipe:", "cache:", "async:file:", "crypto:", "fd:", "md5:", "concatf:", "tee:", "unix:"),
    *("http://127.0.0.1:9/", "tcp://127.0.0.1:9/", "https:/", "rtmp://127.0.0.1:9/", "ftp:/"),
)
_TAGS = (b"TAG" + bytes(125), b"ID3\4\0\0\0\0\0\x20" + bytes(32))
_OPTIONS = (
    *((), (), (), ("--json",), ("--stems", "vocals"), ("--batch", "3"), ("--overlap", "0.9")),
    *(("--format", "flac"), ("--format", "mp3"), ("--format", "ogg"), ("--depth", "16")),
    *(("--depth", "24"), ("--format", "flac", "--depth", "float"), ("--stems", "")),
)


def audio_case(random: Random, corpus: Corpus, folder: Path) -> Case:
    """A damaged song through `bsm infer`, now and then through `bsm parity`."""
    kind = random.choice(list(corpus.audio))
    data = corpus.audio[kind]
    if kind.endswith("wav") and random.random() < 0.5:
        data = _wav(random, data)
    elif kind.endswith("flac") and random.random() < 0.3:
        data = _flac_header(random, data)
    else:
        data = mutate_bytes(random, data)
    if random.random() < 0.05:
        data += random.choice(list(corpus.audio.values()))
    suffix = kind.rpartition(".")[2]
    if random.random() < 0.1:
        suffix = random.choice([name.rpartition(".")[2] for name in corpus.audio] + ["txt"])
    song = put(folder, f"song.{suffix}", data)
    if random.random() < 0.05:
        engines = [str(corpus.onnx), str(corpus.safetensors)]
        arguments = ["parity", *engines, "--audio", song, "--device", "cpu"]
    else:
        arguments = infer(corpus.onnx, song, *random.choice(_OPTIONS))
    return Case(kind=kind.rpartition(".")[2], arguments=arguments)


def name_case(random: Random, corpus: Corpus, folder: Path) -> Case:
    """An intact song with a hostile name, or with hostile names for its outputs."""
    song = put(folder, random.choice(_NAMES), corpus.audio["wav"])
    template = random.choice(_TEMPLATES) if random.random() < 0.5 else _TEMPLATES[0]
    options = random.choice(_OPTIONS)
    if random.random() < 0.2:
        options = ("--stems", random.choice(HOSTILE_TEXTS).replace("\0", ""))
    source = random.choice((song, "in", song, song))
    return Case(kind="names", arguments=infer(corpus.onnx, source, *options, out=template))


def joined_case(random: Random, corpus: Corpus, folder: Path) -> Case:
    """Intact songs of one kind joined in one file; now and then the last has another form."""
    kind = random.choice(list(corpus.audio))
    parts = [corpus.audio[kind]] * random.choice((2, 2, 3, 5))
    seconds, intact = len(parts) * song_seconds(kind), True
    if kind in ("wav", "flac", "aiff", "mp3") and random.random() < 0.3:
        with io.BytesIO() as file:
            form = random.choice(((RATE, 1), (RATE // 2, 2)))
            soundfile.write(file, tone(RATE // 3)[:, : form[1]], form[0], format=kind)
            parts[-1] = file.getvalue()
        intact = False  # it is refused
    between = b""
    if kind in ("mp3", "aac"):
        between = random.choice((b"", *_TAGS))
    song = put(folder, f"song.{kind.rpartition('.')[2]}", between.join(parts))
    arguments = infer(corpus.onnx, song, "--quiet")
    return Case(kind="joined", arguments=arguments, seconds=seconds, intact=intact)


def suffix_case(random: Random, corpus: Corpus, folder: Path) -> Case:
    """An intact song with the suffix of another format."""
    kind, other = (random.choice(list(corpus.audio)) for _ in range(2))
    suffix = random.choice((other.rpartition(".")[2], "oga", "txt", "MP3", "bin"))
    song = put(folder, f"song.{suffix}", corpus.audio[kind])
    arguments = infer(corpus.onnx, song, "--quiet")
    return Case(kind="suffix", arguments=arguments, seconds=song_seconds(kind), intact=True)


def address_case(random: Random, corpus: Corpus, folder: Path) -> Case:
    """An intact song whose name FFmpeg could take for an address, beside longer ones."""
    kind = random.choice(("m4a", "mka", "wav", "mp3", "flac"))
    data = corpus.audio[kind]
    for name in ("decoy", "0", "9"):
        put(folder, f"{name}.{kind}", data * 4, into="")
    name = f"{random.choice(_ADDRESSES)}decoy.{kind}"
    song = put(folder, name, data, into="")
    out = random.choice(("", "out/file:{stem}.{ext}", "out/http:/{stem}.{ext}"))
    arguments = infer(corpus.onnx, song, "--quiet", out=out)
    return Case(kind="address", arguments=arguments, seconds=song_seconds(kind), intact=True)


def songs_case(random: Random, corpus: Corpus, folder: Path) -> Case:
    """A data folder with a damaged stem, for `bsm eval` and the checks of `bsm train`."""
    stems = ("mixture", "vocals", "drums", "bass", "other")
    hit = random.choice(stems)
    command = random.choice(("eval", "eval", "train"))
    split = "test" if command == "eval" else "train"
    for stem in stems:
        data = (corpus.songs / split / "song" / f"{stem}.wav").read_bytes()
        if stem == hit:
            data = random.choice((_wav, mutate_bytes))(random, data)
        put(folder, f"{split}/song/{stem}.wav", data)
    if command == "eval":
        chunks = ("--threads", "1", "--device", "cpu", "--out", "out/eval", "--by-onset")
        arguments = ["eval", str(corpus.onnx), "--data", "in", *chunks]
        return Case(kind="songs", arguments=arguments + random.choice(([], ["--json"])))
    for stem in stems:  # the other splits are missing: nothing is trained
        path = corpus.songs / "valid" / "song" / f"{stem}.wav"
        put(folder, f"valid/song/{stem}.wav", b"" if stem == "bass" else path.read_bytes())
    options = ("--config", str(corpus.config), "--threads", "1", "--cache", "out/cache")
    return Case(kind="songs", arguments=["train", *options, "--data", "in", "--out", "out/run"])


def _wav(random: Random, data: bytes) -> bytes:
    """A WAV with one field of its header, or some of its samples, replaced."""
    fields = [  # offset, size, values
        *((4, 4, (0, 36, 0xFFFFFFFF, 0x7FFFFFFF, random.randrange(1 << 32))),),
        *((16, 4, (0, 14, 16, 18, 40, 0xFFFFFFFF)), (20, 2, (0, 1, 2, 3, 6, 7, 17, 85, 0xFFFE))),
        *((22, 2, (0, 1, 3, 6, 255, 1024, 0xFFFF)), (24, 4, _RATES), (28, 4, (0, 0xFFFFFFFF))),
        *((32, 2, (0, 1, 3, 8, 0xFFFF)), (34, 2, (0, 1, 8, 12, 16, 24, 32, 64, 0xFFFF))),
    ]
    at = data.find(b"data")
    fields.append((at + 4, 4, (0, 1, 3, len(data), 0x7FFFFFF0, 0x80000000, 0xFFFFFFFF)))
    values = bytearray(data)
    if random.random() < 0.3:
        for _ in range(random.choice((1, 5))):
            place = at + 8 + 4 * random.randrange((len(data) - at - 8) // 4)
            struct.pack_into("<I", values, place, random.choice(_FLOATS))
        return bytes(values)
    for offset, size, choices in random.sample(fields, random.choice((1, 1, 2))):
        number = random.choice(choices) % (1 << 8 * size)
        values[offset : offset + size] = number.to_bytes(size, "little")
    return bytes(values)


def _flac_header(random: Random, data: bytes) -> bytes:
    """A FLAC whose STREAMINFO has a changed rate, channels, depth or length (64 bits at 18)."""
    packed = int.from_bytes(data[18:26], "big")
    shift, size = random.choice(((44, 20), (41, 3), (36, 5), (0, 36)))  # rate, channels, bits, all
    most = (1 << size) - 1
    value = random.choice((0, 1, most, most >> 1, random.randrange(most + 1)))
    packed = packed & ~(most << shift) | value << shift
    return data[:18] + packed.to_bytes(8, "big") + data[26:]
