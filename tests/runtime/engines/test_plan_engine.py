"""A plan computes what the ONNX file that it was built from computes, two batches in flight."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import RATE, noise
from fake_gpu.machine import CUDARuntimeError, Machine
from plan_songs import assert_same, quick, vocals
from plans import install, write_plan
from processes import TESTS, bsm, python
from tolerances import assert_close

from bsmamba2.errors import EngineError
from bsmamba2.export.precision.gates import fixed_spectrum
from bsmamba2.runtime.engines import load_engine
from bsmamba2.runtime.engines.estimation import Batch
from bsmamba2.runtime.engines.tensorrt.device import OutOfDeviceMemoryError
from bsmamba2.runtime.engines.tensorrt.engine import PlanEngine
from bsmamba2.runtime.separation.separator import Separator

OUT_OF_MEMORY = CUDARuntimeError(2, "cudaErrorMemoryAllocation: out of memory")
LAUNCH_FAILURE = CUDARuntimeError(719, "cudaErrorLaunchFailure: unspecified failure")

# --- the same numbers ---


@pytest.mark.parametrize("builder", ["tensorrt", "tensorrt-rtx"])
def test_stems_are_those_of_the_onnx_file(
    machine: Machine,
    short_onnx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    builder: str,
):
    install(monkeypatch, machine, builder=builder)
    plan = write_plan(
        short_onnx, tmp_path / "model.plan", change=lambda record: replace(record, builder=builder)
    )
    mixture = noise(2 * RATE)
    found, expected = (
        Separator(load_engine(path), overlap_s=0.25, batch=2).separate(mixture, RATE)
        for path in (plan, short_onnx)
    )
    for name, stem in expected.items():
        assert_close(found[name], stem, "float32", slack=5)


def test_mask_is_that_of_the_onnx_file(
    machine: Machine, short_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    install(monkeypatch, machine)
    plan = load_engine(write_plan(short_onnx, tmp_path / "a.plan", frames=(1, 9, 9)))
    for frames in (9, 2):
        spectrum = fixed_spectrum(plan.metadata.model.audio, frames)
        before = spectrum.copy()
        mask = plan(spectrum)
        assert (mask.shape, mask.dtype) == (spectrum.shape, np.float32)
        assert_close(mask, load_engine(short_onnx)(spectrum), "float32", slack=5)
        assert np.array_equal(spectrum, before)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("n", [1, 60_000, 300_000])
def test_batches_of_any_size_give_the_same(load: Callable[..., PlanEngine], batch: int, n: int):
    mixture = noise(n)
    assert_same(vocals(load(), mixture, batch), mixture)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 11])
def test_masks_of_any_batch_are_those_of_each(load: Callable[..., PlanEngine], count: int):
    spectra = np.random.default_rng(0).standard_normal((count, 2, 60, 1025, 2), np.float32)
    engine = load()
    assert np.array_equal(engine(spectra), quick(spectra))
    assert np.array_equal(engine(spectra[:1]), quick(spectra[:1]))


@pytest.mark.parametrize("arguments", [[], ["--batch", "3"]])
def test_infer_writes_stems_that_add_up(
    machine: Machine,
    short_onnx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
):
    install(monkeypatch, machine, compute=quick)
    monkeypatch.chdir(tmp_path)
    write_plan(short_onnx, Path("model.plan"))
    mixture = noise(3 * RATE)
    soundfile.write("song.wav", mixture.T, RATE, subtype="FLOAT")
    options = ["--engine", "model.plan", "--overlap", "0.25", "--json", *arguments]
    done = bsm("infer", "song.wav", *options)
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["engine"]["backend"] == "tensorrt-rtx"
    (written,) = (file["outputs"] for file in document["files"])
    stems = [soundfile.read(name, dtype="float32")[0].T for name in written.values()]
    assert_same(stems[0], mixture)
    assert np.abs(sum(stems) - mixture).max() < 1e-7


# --- two in flight ---


def order(machine: Machine) -> list[str]:
    """The host's actions: "start A" and "wait A", with a letter for each stream."""
    words = {"execute": "start", "launch": "start", "synchronize": "wait"}
    letters: dict[int, str] = {}
    done = []
    for what, stream in machine.log:
        if what in words:
            letters.setdefault(stream, "ABCDE"[len(letters)])
            done.append(f"{words[what]} {letters[stream]}")
    return done


@pytest.mark.parametrize(
    ("batch", "done"),
    [
        (1, ["start A", "start B", "wait A", "start A", "wait B", "start B", "wait A", "wait B"]),
        (8, ["start A", "start B", "wait A", "wait B"]),  # 4 at a time, the plan's most
    ],
)
def test_a_batch_is_started_before_the_last_ones_result_is_waited_for(
    machine: Machine, load: Callable[..., PlanEngine], batch: int, done: list[str]
):
    separator = Separator(load(capturable=False), overlap_s=0, batch=batch)
    separator.separate(noise((4 if batch == 1 else 8) * RATE), RATE)
    assert order(machine) == done


def test_results_may_be_asked_for_in_any_order_and_are_nobodys_buffers(
    load: Callable[..., PlanEngine],
):
    estimator = load().estimator(1)
    chunks = [noise(RATE)[None] * scale for scale in (0.1, 0.5, 1, 2, 3)]
    pending = [estimator.begin(Batch(chunk.copy(), (0,))) for chunk in chunks]
    found = [one.result() for one in reversed(pending)][::-1]
    for result in found:
        result.flags.writeable = False
    for chunk, result in zip(chunks, found, strict=True):
        assert np.array_equal(result, estimator.begin(Batch(chunk, (0,))).result())


def test_a_song_that_is_left_and_songs_side_by_side_do_not_disturb(
    load: Callable[..., PlanEngine],
):
    separator = Separator(load(), overlap_s=0.25)
    mixtures = [noise(4 * RATE), noise(3 * RATE)]

    def blocks(mixture: np.ndarray) -> Iterator[np.ndarray]:
        yield from np.array_split(mixture, 20, axis=1)

    left = separator.stream(blocks(mixtures[1]), RATE, 2)
    next(left)
    left.close()
    streams = [separator.stream(blocks(mixture), RATE, 2) for mixture in mixtures]
    parts: list[list[np.ndarray]] = [[], []]
    for pair in itertools.zip_longest(*streams):
        for part, stems in zip(parts, pair, strict=True):
            part += [stems["vocals"]] if stems else []
    for part, mixture in zip(parts, mixtures, strict=True):
        assert_same(np.concatenate(part, axis=1), mixture)


# --- what fails ---


def test_a_broken_mask_is_an_error_with_its_time_in_the_song(load: Callable[..., PlanEngine]):
    chunk = 0

    def broken(spectrum: np.ndarray) -> np.ndarray:
        nonlocal chunk
        mask = quick(spectrum)
        for item in mask:
            item[1, 30, 7, 0] = np.nan if chunk == 2 else 0
            chunk += 1
        return mask

    for batch in (1, 2):
        chunk = 0
        separator = Separator(load(compute=broken), overlap_s=0.5, batch=batch)
        # Chunk 2 begins at 2 * 0.5 - 0.25 s; a frame is 10 ms.
        with pytest.raises(EngineError, match=r"NaN or infinite at 1\.05 s"):
            separator.separate(noise(4 * RATE), RATE)


def test_silence_gives_exact_silence(load: Callable[..., PlanEngine]):
    assert not vocals(load(), np.zeros((2, 3 * RATE), np.float32), 4).any()


@pytest.mark.parametrize("where", ["execute", "synchronize", "launch"])
def test_a_failure_of_the_gpu_is_one_sentence_and_the_next_song_is_whole(
    machine: Machine, load: Callable[..., PlanEngine], where: str, caplog: pytest.LogCaptureFixture
):
    engine, mixture = load(), noise(9 * RATE)
    machine.fail_at[where] = LAUNCH_FAILURE
    with pytest.raises(EngineError, match=r"\AThe GPU failed during [^\n]+cudaErrorLaunchFailure"):
        vocals(engine, mixture)
    assert_same(vocals(engine, mixture), mixture)
    assert not caplog.messages


def test_a_failure_is_not_told_of_the_next_one(machine: Machine, load: Callable[..., PlanEngine]):
    network = load().network(1, 101)
    machine.fail_at["execute"] = OUT_OF_MEMORY
    with pytest.raises(OutOfDeviceMemoryError):
        network.enqueue()
    machine.fail_at["execute"] = LAUNCH_FAILURE
    with pytest.raises(EngineError, match=r"\AThe GPU failed during [^\n]+cudaErrorLaunchFailure"):
        network.enqueue()


@pytest.mark.parametrize("frames", [1, 59, 201])
def test_frames_that_the_plan_does_not_take_are_named(load: Callable[..., PlanEngine], frames: int):
    with pytest.raises(EngineError, match=f"takes 60 to 200 frames at a time, not {frames}: "):
        load()(np.zeros((1, 2, frames, 1025, 2), np.float32))


def test_a_plan_for_other_chunks_than_its_models_is_refused_before_a_song(
    machine: Machine, short_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    install(monkeypatch, machine)
    engine = load_engine(write_plan(short_onnx, tmp_path / "a.plan", frames=(801, 801, 801)))
    with pytest.raises(EngineError, match="takes 801 frames at a time, not 101: "):
        Separator(engine, overlap_s=0)


def test_engine_says_what_it_is(load: Callable[..., PlanEngine]):
    engine = load()
    said = engine.describe()
    assert (said["backend"], said["version"]) == ("tensorrt-rtx", "1.7.1.116")
    assert (said["device"], said["gpu"]) == ("cuda", "Pretended GPU")
    assert said["batch"] == [1, 4, 4] == list(engine.batch or ())
    assert (engine.device, engine.precision) == ("cuda", said["precision"])


WITHOUT_TORCH = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np, pytest
from fake_gpu.machine import Machine
from plans import install, write_plan
from bsmamba2.runtime import Separator, load_engine
install(pytest.MonkeyPatch(), Machine())
engine = load_engine(write_plan(Path(sys.argv[2]), Path("model.plan")))
assert Separator(engine, overlap_s=0).separate(np.ones((2, 9), np.float32), 44100)
print({"torch", "onnx", "safetensors", "bsmamba2.export"} & set(sys.modules))
"""


def test_plans_do_not_import_torch(short_onnx: Path, tmp_path: Path):
    done = python(WITHOUT_TORCH, TESTS, short_onnx, folder=tmp_path)
    assert (done.stdout, done.stderr) == ("set()\n", "")
