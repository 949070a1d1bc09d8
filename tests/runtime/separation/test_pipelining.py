"""A song's stages run side by side, yield the same as in sequence, and end together."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import RATE, noise
from processes import TESTS, no_new_threads
from small_engines import FunctionEngine, random_mask, real_mask

from bsmamba2.errors import AudioError, BsmError, EngineError, ResourceError
from bsmamba2.runtime.audio.writing import AudioWriter, OutputFormat
from bsmamba2.runtime.engines.estimation import Batch, EngineEstimator, masked, real_view
from bsmamba2.runtime.engines.stage_times import STAGES, StageTimes
from bsmamba2.runtime.engines.stft import istft, stft
from bsmamba2.runtime.separation.chunking import Chunking
from bsmamba2.runtime.separation.separator import Separator
from bsmamba2.runtime.songs.jobs import Job
from bsmamba2.runtime.songs.separate_files import SeparatedSong, separate_file, separate_files
from bsmamba2.system import lanes

LONG_S = 20  # time-out of a test


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Checks that the runtime's threads end with each test, however it ends."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("bsm-"):
            thread.join(LONG_S)
            assert not thread.is_alive(), thread


def seconds_of(mixture: np.ndarray) -> Iterator[np.ndarray]:
    yield from np.split(mixture, mixture.shape[1] // RATE, axis=1)


def one_after_another(engine: FunctionEngine, mixture: np.ndarray, overlap: int) -> np.ndarray:
    """The target, chunk by chunk and on one thread."""
    audio = engine.metadata.model.audio
    chunking = Chunking.of(audio, overlap / audio.sample_rate)
    estimates = []
    for chunk, count in chunking.split([mixture]):
        spectrum = stft(chunk[None], n_fft=audio.n_fft, hop=audio.hop)
        mask = engine(real_view(spectrum))
        estimate = masked(np.ascontiguousarray(mask), spectrum)
        samples = istft(estimate, n_fft=audio.n_fft, hop=audio.hop, length=audio.chunk_samples)
        estimates.append((samples[0], count))
    return np.concatenate(list(chunking.join(estimates)), axis=1)


@pytest.mark.parametrize(("overlap", "batch"), [(0, 1), (22050, 1), (22050, 3), (0, 100)])
def test_side_by_side_is_one_after_another_to_the_bit(overlap: int, batch: int):
    mixture = noise(7 * RATE + 123)
    expected = one_after_another(FunctionEngine(random_mask()), mixture, overlap)
    separator = Separator(FunctionEngine(random_mask()), overlap_s=overlap / RATE, batch=batch)
    stems = separator.separate(mixture, RATE)
    assert np.array_equal(stems["vocals"], expected)
    assert np.array_equal(stems["instrumental"], mixture - expected)


# --- what overlaps ---


def test_the_next_chunk_is_decoded_and_transformed_while_the_engine_works():
    fed = [threading.Event() for _ in range(9)]
    calls = 0

    def mask(spectrum: np.ndarray) -> np.ndarray:
        nonlocal calls
        # When the next chunk's STFT is done, the block after it is requested.
        assert fed[min(calls + 2, 8)].wait(LONG_S)
        calls += 1
        return real_mask(1)(spectrum)

    def blocks() -> Iterator[np.ndarray]:
        for event, block in zip(fed, seconds_of(noise(9 * RATE)), strict=True):
            event.set()
            yield block

    times = StageTimes()
    stems = Separator(FunctionEngine(mask), overlap_s=0).stream(blocks(), RATE, 2, times)
    assert sum(1 for _ in stems) == 9 == calls
    assert all(times.seconds[stage] > 0 for stage in ("stft", "engine", "istft"))


def test_the_last_chunk_is_encoded_while_the_engine_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written, calls, own = threading.Event(), 0, AudioWriter.write

    def write(self: AudioWriter, block: np.ndarray) -> None:
        own(self, block)
        written.set()

    def mask(spectrum: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 4:  # of nine; three may be in flight
            assert written.wait(LONG_S)
        return real_mask(1)(spectrum)

    monkeypatch.setattr(AudioWriter, "write", write)
    report = separate_file(Separator(FunctionEngine(mask), overlap_s=0), job(tmp_path), WAV)
    assert set(report.stages_s) == set(STAGES)
    assert all(seconds > 0 for seconds in report.stages_s.values())
    assert 0 < report.engine_share < 1


def test_songs_at_a_time_share_an_engine_that_is_never_called_twice_at_once(tmp_path: Path):
    busy, both = threading.Lock(), threading.Barrier(2, timeout=LONG_S)

    def mask(spectrum: np.ndarray) -> np.ndarray:
        assert busy.acquire(blocking=False)
        try:
            return random_mask()(spectrum)
        finally:
            busy.release()

    @contextlib.contextmanager
    def watch(title: str) -> Iterator[None]:
        both.wait()
        yield

    jobs = [job(tmp_path, name, seconds) for name, seconds in (("a", 5), ("b", 3))]
    separator = Separator(FunctionEngine(mask), overlap_s=0)
    reports = list(separate_files(separator, jobs, WAV, at_once=2, watch=watch))
    for one, report in zip(jobs, reports, strict=True):
        assert isinstance(report, SeparatedSong), report
        assert report.job is one
        mixture = soundfile.read(one.source, dtype="float32")[0].T
        found = soundfile.read(one.outputs["vocals"], dtype="float32")[0].T
        expected = one_after_another(FunctionEngine(random_mask()), mixture, 0)
        assert np.array_equal(found, expected)


# --- failures, and callers that stop early ---


WAV = OutputFormat("wav")


def job(folder: Path, name: str = "song", seconds: int = 9) -> Job:
    """A file of noise, and where its stems go."""
    soundfile.write(folder / f"{name}.wav", noise(seconds * RATE).T, RATE, subtype="FLOAT")
    names = ("vocals", "instrumental")
    outputs = {stem: folder / "out" / name / f"{stem}.wav" for stem in names}
    source = folder / f"{name}.wav"
    return Job(source=source, name=str(source), outputs=outputs)


def broken_engine(spectrum: np.ndarray) -> np.ndarray:
    raise EngineError("the engine broke")


def broken_mask(spectrum: np.ndarray) -> np.ndarray:
    return np.full_like(spectrum, np.nan)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("decode", "the decoder broke"),
        ("engine", "the engine broke"),
        ("istft", "NaN or infinite"),
        ("encode", "the disk is full"),
    ],
)
@pytest.mark.parametrize("at_once", [1, 2])
def test_a_failure_in_any_stage_is_the_songs_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, words: str, at_once: int
):
    def fail(self: object, *arguments: object) -> None:
        raise AudioError(words)

    def blocks(self: object) -> Iterator[np.ndarray]:
        yield noise(2 * RATE)
        fail(self)

    if stage == "decode":
        monkeypatch.setattr("bsmamba2.runtime.songs.separate_files.AudioReader.blocks", blocks)
    if stage == "encode":
        monkeypatch.setattr(AudioWriter, "write", fail)
    mask = {"engine": broken_engine, "istft": broken_mask}.get(stage, real_mask(1))
    separator = Separator(FunctionEngine(mask), overlap_s=0)
    jobs = [job(tmp_path, name) for name in "abc"]
    errors = list(separate_files(separator, jobs, WAV, at_once=at_once))
    assert [words in str(error) for error in errors] == [True] * 3, errors
    assert all(isinstance(error, BsmError) for error in errors)
    assert not (tmp_path / "out").exists()


def test_without_a_thread_for_its_target_a_chunk_is_waited_for():
    free, called = threading.Event(), threading.Event()

    def ones(spectrum: np.ndarray) -> np.ndarray:
        called.set()
        return real_mask(1)(spectrum)

    estimator = EngineEstimator(FunctionEngine(ones))
    begun = estimator._masks.submit(lambda: free.wait(LONG_S))  # so that this lane has its thread
    with no_new_threads(), pytest.raises(ResourceError):
        estimator.begin(Batch(noise(RATE)[None], (0,)))
    free.set()
    assert begun.result(LONG_S)
    assert not called.is_set()  # as it was cancelled before its turn


def test_a_stream_that_is_left_calls_the_engine_no_more():
    engine = FunctionEngine(real_mask(1))
    stems = Separator(engine, overlap_s=0).stream(seconds_of(noise(9 * RATE)), RATE, 2)
    next(stems)
    stems.close()
    calls = len(engine.shapes)
    assert calls <= 3
    with pytest.raises(StopIteration):
        next(stems)
    assert len(engine.shapes) == calls


def test_closing_wakes_who_waits_for_an_engine_that_hangs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lanes, "PATIENCE_S", 0.05)
    hangs, free = threading.Event(), threading.Event()

    def mask(spectrum: np.ndarray) -> np.ndarray:
        hangs.set()
        free.wait(LONG_S)
        return real_mask(1)(spectrum)

    separator = Separator(FunctionEngine(mask), overlap_s=0)
    closer = threading.Thread(target=lambda: hangs.wait(LONG_S) and separator.close())
    closer.start()
    with pytest.raises(CancelledError):
        separator.separate(noise(9 * RATE), RATE)
    assert not free.is_set()
    with pytest.raises(CancelledError):
        separator.separate(noise(RATE), RATE)
    closer.join(LONG_S)
    free.set()


INTERRUPTED = """
import sys, time
sys.path.insert(0, sys.argv[1])
import bsmamba2.runtime.engines
from bsmamba2.cli import main
from bsmamba2.system import lanes
from processes import TESTS
from small_engines import FunctionEngine, real_mask
lanes.PATIENCE_S = 0.2
calls = 0
def mask(spectrum):
    global calls
    calls += 1
    if calls == 4:
        print("at work", flush=True)
        time.sleep(1000)
    return real_mask(1)(spectrum)
bsmamba2.runtime.engines.load_engine = lambda *_, **__: FunctionEngine(mask)
main(["infer", *sys.argv[2:]])
"""
LOADING = """
import ctypes, sys
import onnxruntime
from bsmamba2.cli import main
def load(*_, **__):
    print("at work", flush=True)
    lock, c = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    c.pthread_mutex_lock(lock)
    c.pthread_mutex_lock(lock)  # no signal interrupts C
onnxruntime.InferenceSession = load
main(["infer", *sys.argv[2:]])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize(
    ("program", "jobs", "sent", "code", "words"),
    [
        (INTERRUPTED, "1", "SIGINT", 130, "Interrupted."),
        (INTERRUPTED, "2", "SIGINT", 130, "Interrupted."),
        (INTERRUPTED, "1", "SIGTERM", 143, "Terminated."),
        (INTERRUPTED, "2", "SIGHUP", 129, "Terminated."),
        (LOADING, "1", "SIGINT", 130, "Interrupted."),
        (LOADING, "1", "SIGTERM", 143, "Terminated."),
    ],
)
def test_a_signal_ends_a_run_whose_engine_hangs_and_leaves_no_file(
    tmp_path: Path, program: str, jobs: str, sent: str, code: int, words: str
):
    for name in "abc":
        job(tmp_path, name)
    arguments = ["a.wav", "b.wav", "c.wav", "--overlap", "0", "--jobs", jobs]
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(TESTS), *arguments],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        time.sleep(0.2)
        process.send_signal(getattr(signal, sent))
        _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert words in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
