"""A plan gives what the ONNX file gives that it was built from, two batches at a time."""

from __future__ import annotations

import itertools
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fake_gpu.machine import CUDARuntimeError, Machine
from plans import install, write_plan
from small_engines import FunctionEngine
from tolerances import assert_close

from bsmamba2.cli import main
from bsmamba2.errors import EngineError
from bsmamba2.export.gates import fixed_spectrum
from bsmamba2.runtime.engines import load_engine, plan_network
from bsmamba2.runtime.engines.device import OutOfDeviceMemoryError
from bsmamba2.runtime.engines.tensorrt import PlanEngine
from bsmamba2.runtime.estimation import Batch
from bsmamba2.runtime.separator import Separator

RATE = 44100
OUT_OF_MEMORY = CUDARuntimeError(2, "cudaErrorMemoryAllocation: out of memory")


def quick(spectrum: np.ndarray) -> np.ndarray:
    """A mask that differs from chunk to chunk and from bin to bin."""
    return (spectrum / (1 + np.abs(spectrum))).astype(np.float32)


@pytest.fixture(autouse=True)
def said_anew() -> None:
    plan_network._explain_once.cache_clear()


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def load(
    machine: Machine, short_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., PlanEngine]:
    """Loads a plan of the tiny model in chunks of a second, in a network that is a function."""
    path = write_plan(short_onnx, tmp_path / "model.plan", frames=(60, 101, 200))

    def load(**quirks: Any) -> PlanEngine:
        install(monkeypatch, machine, **{"compute": quick, **quirks})
        engine = load_engine(path)
        assert isinstance(engine, PlanEngine)
        return engine

    return load


def noise(n: int) -> np.ndarray:
    return (np.random.default_rng(n).standard_normal((2, n)) * 0.1).astype(np.float32)


def vocals(engine: Any, mixture: np.ndarray, batch: int = 1) -> np.ndarray:
    return Separator(engine, overlap_s=0.25, batch=batch).separate(mixture, RATE)["vocals"]


def assert_same(found: np.ndarray, mixture: np.ndarray) -> None:
    """As the function gives it on the CPU, to the rounding of other batches."""
    expected = vocals(FunctionEngine(quick), mixture)
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


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
        spectrum = fixed_spectrum(plan.artefact.model.audio, frames)
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
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
):
    install(monkeypatch, machine, compute=quick)
    monkeypatch.chdir(tmp_path)
    write_plan(short_onnx, Path("model.plan"))
    mixture = noise(3 * RATE)
    soundfile.write("song.wav", mixture.T, RATE, subtype="FLOAT")
    options = ["--engine", "model.plan", "--overlap", "0.25", "--json", *arguments]
    with pytest.raises(SystemExit) as exit:
        main(["infer", "song.wav", *options])
    said = capsys.readouterr()
    assert not exit.value.code, said.err
    document = json.loads(said.out)
    assert document["engine"]["backend"] == "tensorrt-rtx"
    (written,) = (file["outputs"] for file in document["files"])
    stems = [soundfile.read(name, dtype="float32")[0].T for name in written.values()]
    assert_same(stems[0], mixture)
    assert np.abs(sum(stems) - mixture).max() < 1e-7


# --- two in flight ---


def order(machine: Machine) -> list[str]:
    """What the host did: "start A", "wait A" with a letter for each stream that computes."""
    words = {"execute": "start", "launch": "start", "synchronize": "wait"}
    letters: dict[int, str] = {}
    done = []
    for what, stream in machine.log:
        if what in words:
            letters.setdefault(stream, "ABCDE"[len(letters)])
            done.append(f"{words[what]} {letters[stream]}")
    return done


def test_a_batch_is_started_before_the_last_ones_result_is_waited_for(
    machine: Machine, load: Callable[..., PlanEngine]
):
    engine = load(capturable=False)
    Separator(engine, overlap_s=0).separate(noise(4 * RATE), RATE)
    assert order(machine) == [
        "start A", "start B", "wait A", "start A", "wait B", "start B", "wait A", "wait B",
    ]  # fmt: skip


def test_parts_of_a_batch_are_on_both_streams(machine: Machine, load: Callable[..., PlanEngine]):
    engine = load(capturable=False)
    Separator(engine, overlap_s=0, batch=8).separate(noise(8 * RATE), RATE)
    assert order(machine) == ["start A", "start B", "wait A", "wait B"]


def test_results_are_nobodys_buffers(load: Callable[..., PlanEngine]):
    estimator = load().estimator(1)
    chunks = [noise(RATE)[None] * scale for scale in (0.1, 0.5, 1)]
    results = []
    for chunk in chunks:
        results.append(estimator.begin(Batch(chunk.copy(), (0,))).result())
        results[-1].flags.writeable = False
    for chunk, result in zip(chunks, results, strict=True):
        assert np.array_equal(result, estimator.begin(Batch(chunk, (0,))).result())


def test_results_may_be_asked_for_in_any_order(load: Callable[..., PlanEngine]):
    estimator = load().estimator(1)
    chunks = [noise(RATE)[None] * scale for scale in (0.1, 0.5, 1, 2, 3)]
    pending = [estimator.begin(Batch(chunk, (0,))) for chunk in chunks]
    found = [one.result() for one in reversed(pending)][::-1]
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


# --- CUDA graphs ---


def names(machine: Machine, *wanted: str, stream: int | None = None) -> list[str]:
    """Those of some kinds in the log, of all streams or of one."""
    return [what for what, number in machine.log if what in wanted and stream in (None, number)]


@pytest.mark.parametrize("builder", ["tensorrt", "tensorrt-rtx"])
def test_each_stream_captures_once_after_a_first_run(
    machine: Machine, short_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    builder: str,
):  # fmt: skip
    install(monkeypatch, machine, builder=builder, compute=quick)
    path = write_plan(
        short_onnx, tmp_path / "a.plan", change=lambda record: replace(record, builder=builder)
    )
    engine, mixture = load_engine(path), noise(7 * RATE)
    assert_same(vocals(engine, mixture, 2), mixture)
    assert names(machine, "capture", "captured") == ["capture", "captured"] * 2
    for stream in {number for what, number in machine.log if what == "launch"}:
        own = names(machine, "execute", "capture", "captured", "launch", stream=stream)
        launches = own.count("launch")
        assert own == ["execute", "capture", "execute", "captured", *["launch"] * launches]
    machine.log.clear()
    assert_same(vocals(engine, mixture, 2), mixture)
    assert names(machine, "execute", "capture") == []  # the last batch was smaller, too


def test_what_cannot_be_captured_runs_as_well_with_one_line(
    machine: Machine, load: Callable[..., PlanEngine], caplog: pytest.LogCaptureFixture
):
    mixture = noise(5 * RATE)
    assert_same(vocals(load(capturable=False), mixture), mixture)
    assert not names(machine, "capture", "launch")
    (line,) = caplog.messages
    assert "without a CUDA graph" in line


@pytest.mark.parametrize("where", ["capture", "captured"])
def test_a_capture_that_fails_runs_as_well_with_one_line(
    machine: Machine, load: Callable[..., PlanEngine], caplog: pytest.LogCaptureFixture, where: str
):
    machine.fail_at[where] = CUDARuntimeError(901, "cudaErrorStreamCaptureInvalidated")
    mixture = noise(7 * RATE)
    assert_same(vocals(load(), mixture), mixture)
    assert len(names(machine, "captured")) == (1 if where == "capture" else 2)
    (line,) = caplog.messages
    assert "cudaErrorStreamCaptureInvalidated" in line


# --- what TensorRT-RTX compiles ---


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "bsmamba2/kernels").iterdir())


def test_what_was_compiled_for_a_shape_is_there_for_the_next_process(
    machine: Machine, load: Callable[..., PlanEngine], own_cache: Path
):
    mixture = noise(3 * RATE)
    vocals(load(), mixture)
    vocals(load(), mixture)
    assert len(names(machine, "compile")) == 1
    vocals(load(), mixture, 2)
    assert len(names(machine, "compile")) == 2
    (path,) = kept(own_cache)
    assert path.name.endswith("-1.7.1.116-9.0.cache")
    assert not path.parent.stat().st_mode & 0o077
    machine.capability = "120"
    vocals(load(), mixture)
    assert len(kept(own_cache)) == 2


@pytest.mark.parametrize("damage", ["text", "folder", "open"])
def test_a_cache_that_cannot_be_used_only_costs_time(
    machine: Machine, load: Callable[..., PlanEngine], own_cache: Path, damage: str,
    caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    mixture = noise(3 * RATE)
    assert_same(vocals(load(), mixture), mixture)
    (path,) = kept(own_cache)
    if damage == "text":
        path.write_text("nothing")
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.parent.parent.chmod(0o777)
    assert_same(vocals(load(), mixture), mixture)
    assert len(names(machine, "compile")) == 2
    assert len(caplog.messages) == (0 if damage == "text" else 1)


# --- memory ---


def peak(load: Callable[..., PlanEngine], machine: Machine, batch: int) -> int:
    """Bytes that batches of a size take, two of them at a time."""
    machine.peak = machine.used
    vocals(load(), noise(8 * RATE), batch)
    return machine.peak


@pytest.mark.parametrize(("batch", "fits", "said"), [(4, 2, 1), (4, 1, 2), (2, 1, 1)])
def test_batches_that_do_not_fit_are_halved_and_it_is_said(
    machine: Machine,
    load: Callable[..., PlanEngine],
    caplog: pytest.LogCaptureFixture,
    batch: int,
    fits: int,
    said: int,
):
    machine.memory = (peak(load, machine, fits) + peak(load, machine, 2 * fits)) // 2
    engine, mixture = load(), noise(9 * RATE)
    assert_same(vocals(engine, mixture, batch), mixture)
    assert engine.estimator(batch).batch == fits
    assert_same(vocals(engine, mixture, batch), mixture)
    assert len(caplog.messages) == said
    assert "memory does not suffice for" in caplog.messages[-1]
    assert "Going on with" in caplog.messages[-1]


def test_where_two_chunks_do_not_fit_they_go_one_after_the_other(
    machine: Machine, load: Callable[..., PlanEngine], caplog: pytest.LogCaptureFixture
):
    machine.memory = int(0.75 * peak(load, machine, 1))
    mixture = noise(5 * RATE)
    assert_same(vocals(load(), mixture), mixture)
    (line,) = caplog.messages
    assert line.endswith("Going on with one after the other.")


def test_where_one_chunk_does_not_fit_it_is_one_sentence(
    machine: Machine, load: Callable[..., PlanEngine]
):
    machine.memory = int(0.25 * peak(load, machine, 1))
    with pytest.raises(OutOfDeviceMemoryError, match=r"\A[^\n]+ a chunk [^\n]+use the \.onnx"):
        vocals(load(), noise(5 * RATE))
    machine.memory = 1 << 40


@pytest.mark.parametrize("where", ["execute", "synchronize", "launch"])
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_memory_that_runs_out_on_the_way_is_the_same(
    machine: Machine,
    load: Callable[..., PlanEngine],
    caplog: pytest.LogCaptureFixture,
    where: str,
    batch: int,
):
    engine, mixture = load(), noise(9 * RATE)
    machine.fail_at[where] = OUT_OF_MEMORY
    assert_same(vocals(engine, mixture, batch), mixture)
    assert not machine.fail_at
    assert engine.estimator(batch).batch == max(1, batch // 2)
    (line,) = caplog.messages
    assert "cudaErrorMemoryAllocation" in line


def test_masks_that_do_not_fit_are_computed_in_smaller_batches(
    machine: Machine, load: Callable[..., PlanEngine]
):
    spectra = np.random.default_rng(0).standard_normal((4, 2, 101, 1025, 2), np.float32)
    engine = load()
    machine.fail_at["execute"] = OUT_OF_MEMORY
    assert np.array_equal(engine(spectra), quick(spectra))
    machine.memory = 1
    with pytest.raises(OutOfDeviceMemoryError, match=r"\A[^\n]+use the \.onnx[^\n]+\Z"):
        engine(spectra[:, :, :70])


def test_memory_does_not_grow_with_the_song(machine: Machine, load: Callable[..., PlanEngine]):
    engine = load()
    vocals(engine, noise(5 * RATE))
    first, machine.peak = machine.peak, 0
    vocals(engine, noise(20 * RATE))
    assert machine.peak <= first


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
    machine.fail_at[where] = CUDARuntimeError(719, "cudaErrorLaunchFailure: unspecified failure")
    with pytest.raises(EngineError, match=r"\AThe GPU failed in [^\n]+cudaErrorLaunchFailure"):
        vocals(engine, mixture)
    assert_same(vocals(engine, mixture), mixture)
    assert not caplog.messages


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


def test_spectra_of_another_shape_are_refused(load: Callable[..., PlanEngine]):
    with pytest.raises(EngineError, match="A spectrum must be"):
        load()(np.zeros((1, 2, 101, 1024, 2), np.float32))


def test_engine_says_what_it_is(load: Callable[..., PlanEngine], caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    said = load().describe()
    assert (said["backend"], said["version"]) == ("tensorrt-rtx", "1.7.1.116")
    assert (said["device"], said["gpu"]) == ("cuda", "Pretended GPU")
    assert said["batch"] == [1, 4, 4]


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
    tests = str(Path(__file__).parent.parent)
    command = [sys.executable, "-c", WITHOUT_TORCH, tests, str(short_onnx)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("set()\n", "")
