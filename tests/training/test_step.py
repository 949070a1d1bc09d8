"""One step: which items it draws, what it updates, and when it leaves the state unchanged."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import sys
from dataclasses import replace

import pytest
import torch
from processes import no_new_threads
from small_runs import small_config

from bsmamba2.config.file import load_config
from bsmamba2.data.mixing import TrainingBatch
from bsmamba2.errors import DataError, ResourceError, TrainingError
from bsmamba2.training.distributed import Processes
from bsmamba2.training.loader import load_batches, sample_items
from bsmamba2.training.state import new_state
from bsmamba2.training.step import (
    NotFiniteError,
    Stepper,
    explained_memory,
    learning_rate,
    total_steps,
)

ALONE = Processes(rank=0, count=1, device=torch.device("cpu"))


def mixtures(count: int, *, unreadable: int = 0, seed: int = 0) -> TrainingBatch:
    """One second of noise at a musical level."""
    generator = torch.Generator().manual_seed(seed)
    stems = 0.1 * torch.randn(2, count, 2, 44100, generator=generator)
    return TrainingBatch(
        mixture=stems.sum(0),
        target=stems[0],
        sources=tuple(f"song {i}/vocals@0.000" for i in range(count)),
        unreadable=("vocals.wav ends early.",) * unreadable,
    )


def parts(batch: TrainingBatch, size: int) -> list[TrainingBatch]:
    cuts = [slice(i, i + size) for i in range(0, len(batch.mixture), size)]
    return [TrainingBatch(batch.mixture[c], batch.target[c], batch.sources[c], ()) for c in cuts]


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_the_items_of_a_pass_and_none_is_drawn_twice(processes):
    ranks = [replace(ALONE, rank=rank, count=processes) for rank in range(processes)]
    passes = [itertools.islice(sample_items(12, 6 // processes, rank), 5) for rank in ranks]
    together = [list(itertools.chain(*lists)) for lists in zip(*passes, strict=True)]
    assert together == [list(range(12 + 6 * i, 18 + 6 * i)) for i in range(5)]


def test_learning_rate_warms_up_holds_and_falls_to_zero(tmp_path):
    constant = small_config(tmp_path, "training.warmup_steps=4").training
    assert [learning_rate(s, 100, constant) / 5e-4 for s in range(6)] == pytest.approx(
        [0.25, 0.5, 0.75, 1, 1, 1]
    )
    cosine = small_config(tmp_path, "training.schedule=cosine", "training.warmup_steps=4").training
    rates = [learning_rate(s, 104, cosine) / 5e-4 for s in range(105)]
    assert rates[3:5] == [1, 1]
    assert rates[54] == pytest.approx(0.5)
    assert rates[104] == pytest.approx(0)
    assert all(a >= b for a, b in itertools.pairwise(rates[3:]))


def test_the_paper_trains_200_000_steps(tmp_path):
    paper = load_config("bsmamba2")
    assert total_steps(paper, paper.training.processes) == 200_000
    assert total_steps(small_config(tmp_path, "training.max_steps=7"), 1) == 7


def test_two_passes_of_two_items_are_one_of_four(tmp_path):
    batch = mixtures(4)
    states, found = [], []
    for size in (4, 2):
        settings = (f"training.batch_size={size}", f"training.accumulation={4 // size}")
        config = small_config(tmp_path, *settings)
        state = new_state(config, ALONE.device)
        found.append(Stepper(state, config, ALONE).step(iter(parts(batch, size)))[0])
        states.append(state)
    assert found[1]["loss"] == pytest.approx(found[0]["loss"], rel=1e-5)
    assert found[1]["gradient_norm"] == pytest.approx(found[0]["gradient_norm"], rel=1e-4)
    for a, b in zip(*(s.network.parameters() for s in states), strict=True):
        # AdamW's first step is the sign of the gradient: equal up to where that is about 0.
        assert ((a - b).abs() > 1e-5).float().mean() < 1e-3


def test_an_update_is_adamw_of_the_clipped_gradient_and_the_average_its_recursion(tmp_path):
    config = small_config(tmp_path, "training.gradient_clip=0.01", "training.accumulation=1")
    training, state = config.training, new_state(config, ALONE.device)
    stepper = Stepper(state, config, ALONE)
    expected = {n: p.detach().double() for n, p in state.network.named_parameters()}
    first = {n: torch.zeros_like(p) for n, p in expected.items()}
    second = {n: torch.zeros_like(p) for n, p in expected.items()}
    average: dict[str, torch.Tensor] = {}
    beta1, beta2 = training.betas
    for step in range(1, 4):
        record, _ = stepper.step(iter([mixtures(2, seed=step)]))
        assert record["gradient_norm"] > 0.01
        gradients = {n: p.grad.double() for n, p in state.network.named_parameters()}
        norm = math.sqrt(sum(g.square().sum().item() for g in gradients.values()))
        assert norm == pytest.approx(0.01, rel=1e-3)
        for name, g in gradients.items():
            first[name] = beta1 * first[name] + (1 - beta1) * g
            second[name] = beta2 * second[name] + (1 - beta2) * g * g
            ratio = (first[name] / (1 - beta1**step)) / (
                (second[name] / (1 - beta2**step)).sqrt() + 1e-8
            )
            decayed = expected[name] * (1 - training.learning_rate * training.weight_decay)
            expected[name] = decayed - training.learning_rate * ratio
            # Starts at the weights after the first step.
            old = average.get(name, expected[name])
            average[name] = training.ema_decay * old + (1 - training.ema_decay) * expected[name]
    for module, numbers in ((state.network, expected), (state.ema.module, average)):
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(parameter.double(), numbers[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_steps_lower_the_loss(tmp_path, precision):
    config = small_config(
        tmp_path, f"training.precision={precision}", "training.learning_rate=0.01",
        "training.accumulation=1",
    )  # fmt: skip
    stepper = Stepper(new_state(config, ALONE.device), config, ALONE)
    losses = [stepper.step(iter([mixtures(2)]))[0]["loss"] for _ in range(8)]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_changes_nothing_and_names_the_batch(tmp_path, broken):
    config = small_config(tmp_path)
    state = new_state(config, ALONE.device)
    stepper = Stepper(state, config, ALONE)
    stepper.step(iter(parts(mixtures(4), 2)))
    before = weights(state.network), weights(state.ema)
    batch = mixtures(4)
    batch.target[3, 0, 5] = broken
    with pytest.raises(NotFiniteError) as caught:
        stepper.step(iter(parts(batch, 2)))
    assert caught.value.step == 2
    assert caught.value.sources == ["song 2/vocals@0.000", "song 3/vocals@0.000"]
    for old, module in zip(before, (state.network, state.ema), strict=True):
        torch.testing.assert_close(old, weights(module), rtol=0, atol=0)
    assert state.step == 1


def test_unreadable_files_are_counted_over_resumed_runs_and_limited(tmp_path):
    config = small_config(tmp_path, "data.unreadable_limit=3", "training.accumulation=1")
    state = new_state(config, ALONE.device)
    state.skipped = 2  # by the run that is resumed
    stepper = Stepper(state, config, ALONE)
    record, _ = stepper.step(iter([mixtures(2, unreadable=1)]))
    assert (record["skipped"], state.skipped) == (3, 3)
    with pytest.raises(DataError, match=r"vocals\.wav ends early"):
        stepper.step(iter([mixtures(2, unreadable=1)]))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes."),
        MemoryError(),
    ],
)
def test_out_of_memory_errors_say_what_to_lower(error):
    with pytest.raises(TrainingError, match=r"lower training\.batch_size"), explained_memory():
        raise error


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_a_refused_worker_says_what_to_lower_and_none_stays_behind(tmp_path):
    training = small_config(tmp_path, "training.workers=2").training
    with no_new_threads(), pytest.raises(ResourceError, match=r"lower training\.workers"):
        load_batches([None] * 9, 0, training, ALONE)  # the first queue's thread is refused
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_says_what_to_lower():
    with pytest.raises(ResourceError, match=r"lower training\.workers"), explained_memory():
        raise RuntimeError("DataLoader worker (pid 9) is killed by signal: Killed.")


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="something else"), explained_memory():
        raise RuntimeError("something else")
