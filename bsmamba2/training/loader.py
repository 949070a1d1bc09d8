"""Batches for the steps of one process, drawn ahead by worker processes."""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from bsmamba2.config.training import TrainingConfig
from bsmamba2.data.mixing import TrainingBatch, TrainingMixtures, collate
from bsmamba2.training.distributed import Processes


def load_batches(
    mixtures: TrainingMixtures, first_item: int, training: TrainingConfig, processes: Processes
) -> Iterator[TrainingBatch]:
    """Batches without end, from an item on; the same for any number of workers.

    Args:
        mixtures: Item number -> item.
        first_item: Number of the first item that nobody has drawn yet.
        training: Batch size and workers.
        processes: Who shares the items.
    """
    # Workers notice by their parent that a run was killed; a fork server would be one that stays.
    # They never touch the GPU, so that forking a process that uses it is safe.
    fork = "fork" if sys.platform == "linux" and training.workers else None
    return iter(
        DataLoader(
            mixtures,
            batch_sampler=sample_items(first_item, training.batch_size, processes),
            num_workers=training.workers,
            collate_fn=collate,
            pin_memory=processes.device.type == "cuda",
            worker_init_fn=_ignore_signals,
            multiprocessing_context=fork,
            generator=torch.Generator(),  # its seeds for workers are not drawn from the global one
        )
    )


def sample_items(first_item: int, batch_size: int, processes: Processes) -> Iterator[list[int]]:
    """The items of one process, a list for each forward pass, without end.

    Item numbers count from the start of training and mean the same mixture for any number of
    processes or workers (`bsmamba2.data.mixing`). A forward pass of all processes together takes
    the next `processes.count * batch_size` numbers, and each process a run of `batch_size` of
    those: two processes do with a batch of b what one does with 2 b.
    """
    for start in itertools.count(
        first_item + processes.rank * batch_size, processes.count * batch_size
    ):
        yield list(range(start, start + batch_size))


def _ignore_signals(worker: int) -> None:
    """A signal to the whole group reaches workers too: a step is finished with their help."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
