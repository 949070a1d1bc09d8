"""Makes one song: its parts are composed, played, sung and mixed into stems."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bsmamba2.data.practice import effects
from bsmamba2.data.practice.instruments import Audio, play
from bsmamba2.data.practice.score import (
    Frame,
    Melody,
    Note,
    compose_bass,
    compose_drums,
    compose_frame,
    compose_layer,
    compose_melody,
)
from bsmamba2.data.practice.sounds import Sounds, Voice
from bsmamba2.data.practice.voices import choose_timbre, sing

Pcm = NDArray[np.int16]
"""(2, samples), 16-bit."""
_LAYERS = ("pad", "stab", "arpeggio", "strum", "lead")
_LEVELS_DB = {"drums": (-8.0, 0.0), "bass": (-10.0, -2.0), "other": (-9.0, 0.0)}
_CEILING = 0.95
_FULL_SCALE = 32_767


def make_song(
    rng: np.random.Generator, sounds: Sounds, seconds: float
) -> tuple[dict[str, Pcm], dict[str, Any]]:
    """Makes a song; the same generator state, sounds and synthesisers make the same samples.

    Args:
        rng: Source of all random choices.
        sounds: Instruments and voices to choose from.
        seconds: Length of the song.

    Returns:
        Stems as name -> (2, samples), where "mixture" is the sum of the others; and tempo, key,
        instruments, voices and levels for song.json.

    Raises:
        DataError: A synthesiser failed.
    """
    frame = compose_frame(rng, seconds)
    melody = compose_melody(rng, frame)
    accompaniment, about = _accompany(rng, frame, sounds)
    vocals, singers = _sing_all(rng, frame, melody, sounds)
    stems, levels = _balance(rng, accompaniment, vocals)
    about = {
        "tempo": round(60 / frame.beat_s, 1),
        "key": frame.key,
        "minor": frame.scale[2] == 3,
        **about,
        "voices": [f"{voice.engine} {voice.name}" for voice in singers],
        "levels_db": levels,
    }
    return _master(rng, stems), about


def _pick(rng: np.random.Generator, programs: tuple[int, ...]) -> int:
    return int(programs[rng.integers(len(programs))])


def _accompany(
    rng: np.random.Generator, frame: Frame, sounds: Sounds
) -> tuple[dict[str, Audio], dict[str, Any]]:
    """Plays drums, bass and other, equalised; also returns the instruments used."""
    roles = rng.choice(_LAYERS, int(rng.integers(2, 5)))
    parts = {
        "drums": [compose_drums(rng, frame, _pick(rng, sounds.kits))],
        "bass": [compose_bass(rng, frame, _pick(rng, sounds.roles["bass"]))],
        "other": [
            compose_layer(rng, frame, str(role), _pick(rng, sounds.roles[str(role)]))
            for role in roles
        ],
    }
    about: dict[str, Any] = {"soundfonts": {}, "programs": {}}
    stems: dict[str, Audio] = {}
    for stem, players in parts.items():
        soundfont = sounds.soundfonts[rng.integers(len(sounds.soundfonts))]
        mean_db = effects.BRIGHT_DB if stem == "other" else effects.FLAT_DB
        played = play(players, soundfont, frame.seconds, rng)
        played = effects.equalise(played, rng, mean_db=mean_db)
        stems[stem] = played
        about["soundfonts"][stem] = soundfont.name
        about["programs"][stem] = [part.program for part in players]
    stems["drums"] = effects.compress(stems["drums"], rng.uniform(0.05, 0.2), rng.uniform(1, 4))
    if rng.random() < 0.6:
        stems["bass"] = effects.saturate(stems["bass"], rng.uniform(1, 6))
    return stems, about


def _sing_all(
    rng: np.random.Generator, frame: Frame, melody: Melody, sounds: Sounds
) -> tuple[Audio, list[Voice]]:
    """Sings the vocals: a lead, sometimes doubled or harmonised; also returns the voices used."""
    singers = [_singer(rng, sounds) for _ in range(1 if rng.random() < 0.6 else 2)]
    timbre = choose_timbre(rng, melody.lowest)
    lead = sing(melody.phrases, singers, timbre, frame.seconds, rng)[None]
    lead = effects.high_pass(lead, rng.uniform(70, 140))
    vocals = np.repeat(effects.compress(lead, 0.06, rng.uniform(2, 5)), 2, axis=0)
    if rng.random() < 0.35:
        interval = int(rng.choice([0, 0, 3, 4, 7, -5, 12, -12]))
        backed = [phrase for phrase in melody.phrases if rng.random() < 0.6]
        for sides in ((1.0, 0.25), (0.25, 1.0)):
            phrases = [_beside(phrase, interval, rng) for phrase in backed]
            voice = sing(phrases, singers, timbre, frame.seconds, rng)
            vocals = vocals + rng.uniform(0.2, 0.6) * np.outer(sides, voice)
    vocals = effects.equalise(vocals, rng, 3, effects.PRESENCE_DB)
    if rng.random() < 0.85:
        vocals = effects.reverberate(vocals, rng, rng.uniform(0.05, 0.45), rng.uniform(0.3, 2.5))
    if rng.random() < 0.3:
        delay_s = frame.beat_s * float(rng.choice([0.5, 0.75, 1.0]))
        vocals = effects.echo(vocals, delay_s, rng.uniform(0.1, 0.35))
    return vocals, singers


def _singer(rng: np.random.Generator, sounds: Sounds) -> Voice:
    kind = sounds.flite if rng.random() < 0.35 else sounds.espeak
    return kind[rng.integers(len(kind))]


def _beside(phrase: tuple[Note, ...], interval: int, rng: np.random.Generator) -> tuple[Note, ...]:
    """Returns the phrase for a second voice, transposed and slightly late."""
    late = abs(rng.normal(0, 0.015))
    return tuple(
        Note(note.start_s + late, note.duration_s, note.pitch + interval) for note in phrase
    )


def _balance(
    rng: np.random.Generator, accompaniment: dict[str, Audio], vocals: Audio
) -> tuple[dict[str, Audio], dict[str, float]]:
    """Scales the stems to random levels; returns them and `levels_db` of song.json."""
    levels = {stem: round(rng.uniform(*_LEVELS_DB[stem]), 1) for stem in accompaniment}
    stems = {
        stem: audio * 10 ** (levels[stem] / 20) / effects.rms(audio)
        for stem, audio in accompaniment.items()
    }
    levels["vocals"] = round(rng.uniform(-7, 3), 1)
    active = np.abs(vocals).max(axis=0) > 1e-3
    gain = effects.rms(sum(stems.values(), np.zeros(1))) * 10 ** (levels["vocals"] / 20)
    stems["vocals"] = vocals * gain / (effects.rms(vocals[:, active]) if active.any() else 1.0)
    return stems, levels


def _master(rng: np.random.Generator, stems: dict[str, Audio]) -> dict[str, Pcm]:
    """Scales a song to a record's loudness; one limiter keeps mixture and stems in range."""
    mixture = sum(stems.values(), np.zeros(1))
    loudness = 10 ** (rng.uniform(-17, -10) / 20) / effects.rms(mixture)
    gain = min(loudness, 1.8 * _CEILING / np.abs(mixture).max())
    heard = gain * np.concatenate([mixture, *stems.values()])
    gains = gain * effects.limiter_gain(heard, _CEILING)
    pcm = {
        stem: np.round(audio * gains * _FULL_SCALE).astype(np.int16)
        for stem, audio in stems.items()
    }
    total = np.sum([samples.astype(np.int32) for samples in pcm.values()], axis=0)
    return {"mixture": total.astype(np.int16), **pcm}
