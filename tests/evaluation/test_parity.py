"""Laws of `bsm parity`: its figures are the true differences, its limits those of the precision."""

from __future__ import annotations

import json
import math
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from processes import MAIN, WITHOUT_TORCH, bsm, python
from small_engines import FunctionEngine, random_mask

from bsmamba2.cli.parity import conclusion
from bsmamba2.config.model import ModelConfig
from bsmamba2.errors import EngineError
from bsmamba2.evaluation.parity import LIMITS, Figure, compare_engines
from bsmamba2.evaluation.reference_excerpt import ReferenceExcerpt, load_reference_excerpt
from bsmamba2.runtime.audio.samples import Samples
from bsmamba2.runtime.engines.estimation import Batch, Chunks


def engine(factor: float = 1.0, precision: str = "float32") -> FunctionEngine:
    made = FunctionEngine(lambda spectrum: random_mask()(spectrum) * np.float32(factor))
    made.precision = precision
    return made


@pytest.fixture
def heard() -> ReferenceExcerpt:
    made_up = load_reference_excerpt(None, engine().metadata.model.audio)
    return replace(made_up, voice=made_up.mixture * np.float32(0.5))


def figures(first: Any, second: Any, excerpt: ReferenceExcerpt) -> dict[str, Figure]:
    return {f"{f.stage}: {f.name}": f for f in compare_engines(first, second, excerpt)}


def test_an_engine_equals_itself(heard: ReferenceExcerpt):
    found = figures(engine(), engine(), heard)
    assert all(figure.passed for figure in found.values())
    assert [figure.stage for figure in found.values()] == [
        *("spectrum", "mask", "mask", "synthesis", "audio", "audio")
    ]
    values = [figure.value for figure in found.values()]
    assert 0 < values[0] < 1e-6
    assert values[1:] == [0, 0, 0, math.inf, 0]
    assert list(found.values())[4].document()["value"] is None  # JSON knows no infinity


def test_figures_are_those_of_the_difference(heard: ReferenceExcerpt):
    found = compare_engines(engine(), engine(1.01), heard)
    _, mask, p999, synthesis, sdr, _ = (figure.value for figure in found)
    assert mask == pytest.approx(0.01, rel=1e-3)
    quantile = np.quantile(np.abs(random_mask()(np.zeros((1, 2, 101, 1025, 2)))), 0.999)
    assert p999 == pytest.approx(0.01 * quantile, rel=1e-2)
    assert synthesis == pytest.approx(0.01, rel=1e-3)
    assert sdr == pytest.approx(40, abs=0.01)


@pytest.mark.parametrize("precisions", [("float32", "float16"), ("int8", "float16")])
def test_limits_are_those_of_the_less_precise(heard: ReferenceExcerpt, precisions: tuple[str, str]):
    limits = LIMITS[precisions[1] if precisions[0] == "float32" else precisions[0]]
    for first, second in (precisions, precisions[::-1]):
        found = compare_engines(engine(1, first), engine(1, second), heard)
        expected = (limits.relative_rms, limits.p999, 10 ** (-limits.sdr_db / 20), limits.sdr_db)
        assert [figure.limit for figure in found][1:5] == pytest.approx(expected)
        assert found[5].limit == limits.usdr_db


def test_precision_is_the_one_an_engine_says_it_runs_in(heard: ReferenceExcerpt):
    second = engine()
    second.metadata = replace(second.metadata, precision="int8")
    second.precision = "float16"
    assert compare_engines(engine(), second, heard)[1].limit == 3e-3
    with pytest.raises(EngineError, match="no limits for the precision 'fp8'"):
        compare_engines(engine(), engine(1, "fp8"), heard)


def test_nan_fails_every_stage_that_it_reaches(heard: ReferenceExcerpt):
    found = compare_engines(engine(), engine(math.nan), heard)
    assert [figure.passed for figure in found] == [True] + [False] * 5


@pytest.mark.parametrize("sdr_db", [limit.sdr_db for limit in LIMITS.values()])
def test_bound_without_a_voice_implies_the_limit_with_one(sdr_db: float):
    """Assumes a song separated with 13.6 dB and uncorrelated rounding errors."""
    (limits,) = (limits for limits in LIMITS.values() if limits.sdr_db == sdr_db)
    random = np.random.default_rng(0)
    error, rounding = random.standard_normal((2, 1_000_000))  # below a voice of power 1
    error *= 10 ** (-13.6 / 20)
    rounding *= 10 ** (-sdr_db / 20)
    loss = 10 * np.log10(np.mean((error + rounding) ** 2) / np.mean(error**2))
    assert loss < limits.usdr_db * 1.02 + 1e-4


# --- engines that go from audio to audio ---


class OwnWay(FunctionEngine):
    """An engine with transforms of its own, which make everything louder."""

    in_flight = 1

    def estimator(self, batch: int) -> OwnWay:
        return self

    def begin(self, batch: Batch) -> Future[Chunks]:
        done: Future[Chunks] = Future()
        done.set_result(batch.chunks * np.float32(1.5))
        return done


def test_audio_is_from_an_engines_own_transforms(heard: ReferenceExcerpt):
    plain = engine()
    found = compare_engines(plain, OwnWay(random_mask()), heard)
    assert [figure.passed for figure in found[:4]] == [True] * 4
    assert not found[4].passed


# --- engines that cannot be compared ---


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        (
            "audio",
            "hop",
            882,
            r"The two engines have different audio settings \(audio.hop is 441 and 882\)",
        ),
        (
            "network",
            "layers",
            3,
            r"The two engines are different networks \(network.layers is 2 and 3\)",
        ),
    ],
)
def test_different_configurations_are_refused(
    heard: ReferenceExcerpt, part: str, key: str, value: int, words: str
):
    second = engine()
    model = second.metadata.model
    changed = {
        name: replace(getattr(model, name), **({key: value} if name == part else {}))
        for name in ("audio", "network")
    }
    second.metadata = replace(second.metadata, model=ModelConfig(**changed))
    with pytest.raises(EngineError, match=words):
        compare_engines(engine(), second, heard)


# --- the command ---


@pytest.fixture(scope="module")
def short_engines(short_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The tiny network with chunks of a second, and a copy with one weight of the masks changed."""
    model = onnx.load(short_onnx)
    (bias,) = (t for t in model.graph.initializer if t.name == "masks.value_bias_0")
    values = onnx.numpy_helper.to_array(bias) + np.float32(0.1)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    second = tmp_path_factory.mktemp("parity") / "second.onnx"
    onnx.save(model, second)
    return short_onnx, second


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import soundfile

    path = tmp_path_factory.mktemp("song") / "song.wav"
    samples: Samples = np.random.default_rng(0).uniform(-0.5, 0.5, (44_100, 2))
    soundfile.write(path, samples, 44_100)
    return path


def test_command_prints_a_table_and_succeeds(short_engines: tuple[Path, Path], song: Path):
    first, _ = short_engines
    done = bsm("parity", first, first, "--audio", song)
    assert done.code == 0
    rows = done.out.splitlines()
    assert rows[0] == f"A  {first}: onnxruntime, float32"
    assert rows[2] == "   on the loudest 1 s of song.wav"
    assert [row.split()[0] for row in rows[4:-2]] == [
        *("spectrum", "mask", "mask", "synthesis", "audio")
    ]
    assert all(row.endswith("passed") for row in rows[4:-2])
    assert rows[-2:] == ["", "All 5 checks passed."]


def test_a_missed_limit_is_reported_and_exits_with_1_without_torch(
    short_engines: tuple[Path, Path], song: Path
):
    command = ("parity", *short_engines, "--audio", song)
    done = python(WITHOUT_TORCH + MAIN, *command, "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    assert report["passed"] is False
    assert [engine["file"] for engine in report["engines"]] == [str(p) for p in short_engines]
    assert [figure["passed"] for figure in report["figures"]] == [True] + [False] * 4
    table = bsm(*command)
    assert table.code == 1
    assert table.out.count("FAILED") == 4
    assert table.out.endswith("\n4 of 5 checks failed.\n")


def test_engines_of_different_weights_are_named_so_if_both_name_their_file():
    first, second = engine(), engine()
    for sha256, words in ((None, ""), ("00", ""), ("11", "; these engines hold different weights")):
        for one, digest in ((first, "00"), (second, sha256)):
            provenance = replace(one.metadata.provenance, source_sha256=digest)
            one.metadata = replace(one.metadata, provenance=provenance)
        assert conclusion(0, 5, [first, second]) == f"All 5 checks passed{words}."


def test_pytorch_and_onnx_runtime_are_one_network(
    tiny_checkpoint: Path, tiny_export: Path, song: Path
):
    done = bsm("parity", tiny_checkpoint, tiny_export, "--audio", song)
    assert done.code == 0, done.out
    assert f"A  {tiny_checkpoint}: pytorch, float32" in done.out
