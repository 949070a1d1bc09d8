"""Batches for the steps of one process, prepared ahead by worker processes."""

from __future__ import annotations

import contextlib
import itertools
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from multiprocessing.process import BaseProcess

import torch
from torch.utils.data import DataLoader

from bsmamba2.config.training import TrainingConfig
from bsmamba2.data.mixing import TrainingBatch, TrainingMixtures, collate
from bsmamba2.errors import ResourceError, resource_error
from bsmamba2.training.distributed import Processes

FEWER_WORKERS = "close other programs, or lower training.workers"


def load_batches(
    mixtures: TrainingMixtures, first_item: int, training: TrainingConfig, processes: Processes
) -> Iterator[TrainingBatch]:
    """Loads an endless sequence of batches, the same for any number of workers.

    Args:
        mixtures: The items, by number.
        first_item: Number of the first item that has not been drawn yet.
        training: Batch size and number of workers.
        processes: The processes that share the items.

    Raises:
        ResourceError: The system refused a worker.
    """
    # Workers end when their parent dies; a fork server as the parent would outlive a killed run.
    # They never touch the GPU, so it is safe to fork a process that uses it.
    fork = "fork" if sys.platform == "linux" and training.workers else None
    loader = DataLoader(
        mixtures,
        batch_sampler=sample_items(first_item, training.batch_size, processes),
        num_workers=training.workers,
        collate_fn=collate,
        pin_memory=processes.device.type == "cuda",
        worker_init_fn=_set_up_worker,
        multiprocessing_context=fork,
        generator=torch.Generator(),  # worker seeds must not advance the global generator
    )
    others = multiprocessing.active_children()
    try:
        return iter(loader)
    except (OSError, RuntimeError) as error:  # a worker or a queue's thread was refused
        _kill(child for child in multiprocessing.active_children() if child not in others)
        if resource_error(error):
            raise ResourceError(f"The system refused a data worker: {FEWER_WORKERS}.") from error
        raise


def end_workers(batches: Iterator[TrainingBatch]) -> None:
    """Ends the workers of `load_batches`, for which a process that is interrupted would wait.

    They ignore SIGTERM, and the traceback of an error keeps the iterator, which would end them.
    """
    shut_down = getattr(batches, "_shutdown_workers", None)  # absent without workers
    if shut_down is not None:
        shut_down()
        _kill(getattr(batches, "_workers", ()))


def sample_items(first_item: int, batch_size: int, processes: Processes) -> Iterator[list[int]]:
    """Yields the item numbers of one process without end, a list for each forward pass.

    Item numbers count from the start of training and denote the same mixture for any number of
    processes or workers (`bsmamba2.data.mixing`). One forward pass on all processes consumes the
    next `processes.count * batch_size` numbers, of which each process takes `batch_size`
    consecutive ones: two processes with batches of b train as one process with batches of 2 b.
    """
    for start in itertools.count(
        first_item + processes.rank * batch_size, processes.count * batch_size
    ):
        yield list(range(start, start + batch_size))


def _kill(workers: Iterable[BaseProcess]) -> None:
    """Kills the workers that still live: Python would ask them to end, and wait for ever."""
    for worker in workers:
        with contextlib.suppress(RuntimeError):  # PyTorch's, when it hears of the end
            worker.kill()
            worker.join()


def _set_up_worker(worker: int) -> None:
    """Ignores signals sent to the whole process group: workers must help to finish the step.

    A worker sends its errors to the process that trains; what Python prints when a worker dies is
    shown only with the log messages of `bsm --debug`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not logging.getLogger().isEnabledFor(logging.DEBUG):
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
