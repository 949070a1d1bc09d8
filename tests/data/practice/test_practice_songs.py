"""Laws of the practice songs."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from practice_tools import SOUNDFONT, STEMS, contents, read, skip_without_synthesisers

from bsmamba2.config.file import load_config
from bsmamba2.data.practice.generate import SPLITS, PracticeSet, generate_songs
from bsmamba2.data.practice.installed import import_quietly
from bsmamba2.data.practice.instruments import SAMPLE_RATE, play
from bsmamba2.data.practice.score import Note, Part, compose_frame, compose_melody
from bsmamba2.data.practice.sounds import Voice, choose_sounds
from bsmamba2.data.practice.voices import Timbre, sing
from bsmamba2.errors import DataError

COUNTS = {"train": 2, "valid": 1, "test": 1}


@pytest.fixture(scope="module", autouse=True)
def _synthesisers() -> None:
    skip_without_synthesisers()


def make(folder: Path, *, seed: int = 0, jobs: int = 1, **counts: int) -> Path:
    songs = PracticeSet(counts=counts or COUNTS, seconds=5, seed=seed, soundfonts=(SOUNDFONT,))
    generate_songs(folder, songs, jobs=jobs)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("songs") / "set")


def test_any_number_of_processes_makes_the_same_bytes(root: Path, tmp_path: Path) -> None:
    assert contents(make(tmp_path / "set", jobs=2)) == contents(root)


def test_every_song_differs(root: Path, tmp_path: Path) -> None:
    other = make(tmp_path / "set", seed=1, train=1)
    mixtures = [path.read_bytes() for path in (*root.rglob("mixture.wav"), *other.rglob("mix*"))]
    assert len(mixtures) == 5
    assert all(a != b for a, b in combinations(mixtures, 2))


def test_mixture_is_the_sum_of_the_stems_and_nothing_clips(root: Path) -> None:
    for path in root.glob("*/song-*"):
        stems = [read(path, stem) for stem in STEMS]
        mixture = read(path, "mixture")
        np.testing.assert_array_equal(mixture, sum(stems))
        assert len(mixture) == 5 * SAMPLE_RATE
        for samples in (mixture, *stems):
            assert 1000 < np.abs(samples).max() < 0.96 * 32768


def test_the_layout_is_what_training_reads(root: Path) -> None:
    from bsmamba2.data.checks import check_tracks
    from bsmamba2.data.tracks import find_tracks

    config = load_config("bsmamba2")
    check_tracks(root, SPLITS, config.data, config.audio)
    for split, count in COUNTS.items():
        tracks = find_tracks(root, split, config.data).tracks
        assert [track.name for track in tracks] == [f"song-{i:05d}" for i in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_the_melody_rests(seed: int) -> None:
    rng = np.random.default_rng(seed)
    melody = compose_melody(rng, compose_frame(rng, 30))
    notes = [note for phrase in melody.phrases for note in phrase]
    sung = sum(note.duration_s for note in notes)
    assert 1 < sung < 27
    ends = [phrase[-1].start_s + phrase[-1].duration_s for phrase in melody.phrases]
    starts = [phrase[0].start_s for phrase in melody.phrases]
    assert all(start > end + 0.1 for start, end in zip(starts[1:], ends, strict=False))
    assert max(ends) < 30


PHRASES = (
    tuple(Note(0.5 + 0.6 * i, 0.6, pitch) for i, pitch in enumerate((55, 59, 62, 57))),
    (Note(3.6, 1.2, 60),),
)
"""Sung from 0.5 s to 2.9 s and from 3.6 s to 4.8 s."""
DRY = Timbre(tract=1.0, vibrato=0.0, breath=1.0)
ESPEAK, FLITE = Voice(engine="espeak-ng", name="en-us"), Voice(engine="flite", name="slt")


def sung(voice: Voice) -> np.ndarray:
    return sing(PHRASES, [voice], DRY, 5.5, np.random.default_rng(1))


@pytest.mark.parametrize("voice", [ESPEAK, FLITE], ids=lambda voice: voice.engine)
def test_the_voice_is_silent_between_phrases(voice: Voice) -> None:
    audio = sung(voice)
    silent = np.ones(len(audio), dtype=bool)
    for begin, end in ((0.5, 2.91), (3.6, 4.81)):
        silent[round(begin * SAMPLE_RATE) : round(end * SAMPLE_RATE)] = False
    assert not audio[silent].any()
    assert np.sqrt(np.mean(audio[~silent] ** 2)) > 0.05


@pytest.mark.parametrize("voice", [ESPEAK, FLITE], ids=lambda voice: voice.engine)
def test_the_voice_sings_the_notes(voice: Voice) -> None:
    """The pitch is measured by Harvest, independently of the synthesis."""
    audio = sung(voice)
    f0, times = import_quietly("pyworld").harvest(audio, SAMPLE_RATE, f0_floor=80, f0_ceil=600)
    wanted = np.zeros(len(times))
    for note in (note for phrase in PHRASES for note in phrase):
        # After the glide from the note before.
        held = (times > note.start_s + 0.15) & (times < note.start_s + note.duration_s - 0.02)
        wanted[held] = 440 * 2 ** ((note.pitch - 69) / 12)
    both = (f0 > 0) & (wanted > 0)
    assert both.sum() > 100
    cents = 1200 * np.log2(f0[both] / wanted[both])
    assert np.median(np.abs(cents)) < 50


def test_an_instrument_that_is_missing_is_replaced_by_the_first_of_its_bank() -> None:
    notes = (Note(0.1, 0.5, 38), Note(0.6, 0.5, 45))

    def played(role: str, program: int) -> np.ndarray:
        part = Part(role=role, program=program, notes=notes)
        return play([part], SOUNDFONT, 1.5, np.random.default_rng(0))

    standard = played("drums", 0)
    assert np.abs(standard).max() > 0.01
    np.testing.assert_array_equal(played("drums", 26), standard)
    assert not np.array_equal(played("drums", 16), standard)


@pytest.mark.parametrize(
    "fonts", [("TimGM6mb.sf2",), ("FluidR3_GM.sf2", "MuseScore_General.sf3", "TimGM6mb.sf2")]
)
def test_songs_to_test_on_have_sounds_of_their_own(fonts: tuple[str, ...]) -> None:
    paths = [Path(name) for name in fonts]
    train, valid, test = (choose_sounds(split, paths) for split in SPLITS)
    assert train == valid
    assert not set(train.kits) & set(test.kits)
    assert not {(v.engine, v.name) for v in (*train.espeak, *train.flite)} & {
        (v.engine, v.name) for v in (*test.espeak, *test.flite)
    }
    for role, programs in train.roles.items():
        assert programs
        assert test.roles[role]
        assert not set(programs) & set(test.roles[role])
    if len(fonts) > 1:
        assert not set(train.soundfonts) & set(test.soundfonts)


def test_a_voice_that_is_not_installed_is_named() -> None:
    with pytest.raises(
        DataError, match=r"'espeak-ng -v xx-none' produces no speech: .*voice"
    ) as error:
        sung(Voice(engine="espeak-ng", name="xx-none"))
    assert "\n" not in str(error.value)
