"""What a chunk's edge costs, how much context mends it, and whether the seams can be found.

    bsm practice songs --train 0 --valid 0 --test 5 --seconds 40 --seed 7
    python bench/seams/study.py songs               # results/seams.json; takes some twenty minutes
    python bench/seams/study.py songs --draw        # runtime/SEAMS.md and plots, from the JSON

An engine takes any number of frames, so that one pass over a whole song is what chunks are compared
with. Music is practice songs, and the six seconds of real music in the stempeg wheel, whose seams
are put at many places by leaving out more and more of its beginning. The JSON:

    edges      chunk_s -> curves against the distance from an edge, 20 ms a value (`EdgeErrors`)
    frames     the whole song's estimate against that of frames half a hop later
    overlaps   a row for each way to cut: chunks a minute, uSDR, its difference to the whole's
    seams      a row for each way to cut, fade and stem: the verdicts of `SeamRanks`; `kind` is
               "chunks", "whole" (no seam is there) or "step" (an artificial one of so many dB)
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the checkout

from bench.common.checkout import ROOT
from bench.common.report import report_head, write_report
from bench.seams.page import draw
from bench.seams.passes import EdgeErrors, Passes, Song, joined, seams
from bench.seams.tests import SeamRanks, with_steps
from bsmamba2.errors import BsmError
from bsmamba2.evaluation.metrics import usdr
from bsmamba2.evaluation.reference_excerpt import load_excerpt
from bsmamba2.runtime import EngineOptions, load_engine
from bsmamba2.runtime.audio.samples import Samples
from bsmamba2.runtime.engines import default_engine_path
from bsmamba2.runtime.separation.chunking import FADE_S, Chunking
from bsmamba2.system.files import sha256_file

RESULT = ROOT / "bench/results/seams.json"
OVERLAPS_S = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0)
FADES_S = (0.0, 0.01, FADE_S)
PARTS = ("edges", "frames", "overlaps", "seams")
STEPS_DB = (0.5, 1.0, 2.0)
"""Of the artificial seams."""


@dataclass(frozen=True)
class Plan:
    """How one kind of music is measured."""

    name: str
    chunks_s: Sequence[int]
    edge_step_s: float
    """From one chunk to the next where errors are taken against the distance from the edge."""
    shifts_s: Sequence[float]
    """What is left out of a song's beginning, so that seams fall on other places."""
    shifted_overlaps_s: Sequence[float]
    """Overlaps that are measured at all shifts; the others at the first."""


PRACTICE = Plan("practice", (4, 8), 4.0, (0.0, 0.83), (0.0, 0.5, 1.0))
EXCERPT = Plan("excerpt", (4,), 0.1, tuple(k / 10 for k in range(20)), OVERLAPS_S)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    try:
        if not options.draw:
            name = options.engine
            path = default_engine_path() if name == "default" else Path(name)
            head = report_head("seams", arguments)
            head |= {"engine": {"name": name, "sha256": sha256_file(path)}}
            for found in measure(options):  # after each song: an interrupted run has its songs
                write_report(options.output, head | found)
        draw(json.loads(options.output.read_text()), ROOT / "runtime")
    except (BsmError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Edges and seams of chunks.")
    parser.add_argument("songs", type=Path, metavar="SONGS", help="made by bsm practice")
    parser.add_argument("--engine", default="default", help="that takes any number of frames")
    parser.add_argument("--threads", type=int, help="of the engine (default: all cores)")
    parser.add_argument("--draw", action="store_true", help="measure nothing, draw the page again")
    parser.add_argument("-o", "--output", type=Path, default=RESULT, help="the JSON")
    return parser


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All of it; the report without its head, after each song."""
    passes = Passes(load_engine(options.engine, EngineOptions(threads=options.threads)))
    report: dict[str, Any] = {part: {} for part in ("music", *PARTS)}
    excerpt = load_excerpt()
    kinds = [(PRACTICE, practice_songs(options.songs))]
    if excerpt is not None:
        kinds.insert(0, (EXCERPT, iter([Song("excerpt", excerpt.mixture, excerpt.vocals)])))
    for plan, songs in kinds:
        found, seconds = Measured(plan, passes), []
        for song in songs:
            print(f"{plan.name}: {song.name}", file=sys.stderr, flush=True)
            found.add(song)
            seconds.append(round(song.mixture.shape[1] / passes.audio.sample_rate, 2))
            report["music"][plan.name] = {"songs_s": seconds, "shifts_s": plan.shifts_s}
            for part in PARTS:
                report[part][plan.name] = getattr(found, f"{part}_report")()
            yield report


def practice_songs(folder: Path) -> Iterator[Song]:
    """The test songs below a folder.

    Raises:
        BsmError: There are none.
    """
    found = sorted((folder / "test").glob("*/mixture.wav"))
    if not found:
        raise BsmError(
            f"No songs in {folder / 'test'}: make some with bsm practice, as --help says."
        )
    for path in found:
        mixture, vocals = (
            soundfile.read(path.with_name(f"{stem}.wav"), dtype="float32", always_2d=True)[0].T
            for stem in ("mixture", "vocals")
        )
        yield Song(path.parent.name, mixture, vocals)


@dataclass
class Measured:
    """What all songs of one kind gave."""

    plan: Plan
    passes: Passes
    edges: dict[int, EdgeErrors] = field(default_factory=dict)
    scores: dict[tuple[int, float], list[tuple[float, float, float]]] = field(default_factory=dict)
    """(chunk, overlap) -> uSDR, uSDR of the whole pass, SDR against the whole pass; a song each."""
    between: list[tuple[float, float]] = field(default_factory=list)
    """Frames half a hop later: SDR against the whole pass, difference in uSDR; a song each."""
    ranks: dict[tuple[Any, ...], SeamRanks] = field(default_factory=dict)
    """(kind, chunk, overlap, fade or dB, stem) -> ranks."""

    def add(self, song: Song) -> None:
        """Measures a song in all ways."""
        for shift_s in self.plan.shifts_s:
            first = self.passes.samples(shift_s)
            cut = Song(song.name, song.mixture[:, first:], song.vocals[:, first:])
            whole = self.passes.whole(cut.mixture)
            if not first:
                between = self.passes.between(cut.mixture)
                values = usdr(whole, between), usdr(cut.vocals, between) - usdr(cut.vocals, whole)
                self.between.append(values)
            for chunk_s in self.plan.chunks_s:
                if not first:
                    self._add_edges(cut, whole, chunk_s)
                for overlap_s in (o for o in OVERLAPS_S if o <= chunk_s / 2):
                    every = chunk_s == 4 and overlap_s in self.plan.shifted_overlaps_s
                    if every or not first:
                        self._add_cut(cut, whole, chunk_s, overlap_s, scored=not first)

    def _add_edges(self, song: Song, whole: Samples, chunk_s: int) -> None:
        edges = self.edges.setdefault(chunk_s, EdgeErrors(self.passes.audio, chunk_s))
        chunks = self.passes.inner_chunks(song.mixture, chunk_s, self.plan.edge_step_s)
        for start, estimate in chunks:
            edges.add(estimate, start, whole, song.vocals)

    def _add_cut(
        self, song: Song, whole: Samples, chunk_s: int, overlap_s: float, *, scored: bool
    ) -> None:
        chunking = self.passes.chunking(chunk_s, overlap_s)
        estimates = self.passes.chunks(song.mixture, chunking)
        total, key = song.mixture.shape[1], (chunk_s, overlap_s)
        for fade_s in _fades(overlap_s):
            fade = min(self.passes.samples(fade_s), chunking.context)
            voice = joined(estimates, chunking, total, fade)
            self._rank("chunks", (*key, fade_s), song, voice, whole, chunking)
            if fade == 0 and scored:
                own = usdr(song.vocals, voice), usdr(song.vocals, whole), usdr(whole, voice)
                self.scores.setdefault(key, []).append(own)
        self._rank("whole", (*key, None), song, whole, whole, chunking)
        for step_db in STEPS_DB:
            stepped = with_steps(whole, seams(chunking, total), step_db)
            self._rank("step", (*key, step_db), song, stepped, whole, chunking)

    def _rank(
        self,
        kind: str,
        way: tuple[Any, ...],
        song: Song,
        voice: Samples,
        whole: Samples,
        chunking: Chunking,
    ) -> None:
        places, rate = seams(chunking, voice.shape[1]), self.passes.audio.sample_rate
        stems = {"vocals": (voice, whole)}
        if kind != "step":
            stems["instrumental"] = (song.mixture - voice, song.mixture - whole)
        for stem, (sound, other) in stems.items():
            ranks = self.ranks.setdefault((kind, *way, stem), SeamRanks())
            ranks.add(sound, other, places, rate)

    def edges_report(self) -> dict[str, Any]:
        """Chunk length -> number of edges and curves."""
        return {
            f"{chunk_s:g}": {"edges": edges.edges}
            | {name: np.round(curve, 2).tolist() for name, curve in edges.curves_db().items()}
            for chunk_s, edges in self.edges.items()
        }

    def frames_report(self) -> dict[str, float]:
        """What frames half a hop later change, on average over songs."""
        sdr, gain = np.mean(self.between, axis=0)
        return {"sdr_to_whole": round(float(sdr), 2), "to_whole_usdr": round(float(gain), 4)}

    def overlaps_report(self) -> list[dict[str, Any]]:
        """A row for each way to cut, without a fade."""
        rows = []
        for (chunk_s, overlap_s), scores in self.scores.items():
            usdrs, wholes, to_whole = np.array(scores).T
            gain = usdrs - wholes
            error = gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else None
            rows.append(
                {
                    "chunk_s": chunk_s,
                    "overlap_s": overlap_s,
                    "chunks_per_minute": round(60 / (chunk_s - overlap_s), 2),
                    "usdr": round(float(usdrs.mean()), 4),
                    "whole_usdr": round(float(wholes.mean()), 4),
                    "to_whole_usdr": round(float(gain.mean()), 4),
                    "to_whole_error": None if error is None else round(float(error), 4),
                    "sdr_to_whole": round(float(to_whole.mean()), 2),
                }
            )
        return rows

    def seams_report(self) -> list[dict[str, Any]]:
        """A row for each way to cut, fade and stem."""
        rows = []
        for (kind, chunk_s, overlap_s, value, stem), ranks in self.ranks.items():
            about: dict[str, Any] = {"kind": kind, "chunk_s": chunk_s, "overlap_s": overlap_s}
            about |= {"chunks": {"fade_s": value}, "step": {"step_db": value}, "whole": {}}[kind]
            rows.append(about | {"stem": stem} | ranks.verdict())
        return rows


def _fades(overlap_s: float) -> list[float]:
    """Those that fit into the context, and all of it."""
    context_s = overlap_s / 2
    return sorted({*(fade for fade in FADES_S if fade <= context_s), context_s})


if __name__ == "__main__":
    sys.exit(main())
