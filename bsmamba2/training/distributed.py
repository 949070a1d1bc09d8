"""One process or several, as torchrun starts them."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bsmamba2.errors import TrainingError

_TIMEOUT = datetime.timedelta(hours=2)  # a validation of the others, or salience of a whole set


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those that train together."""

    rank: int
    """0 writes the files and reports."""
    count: int
    """How many there are."""
    device: torch.device
    """Where this one computes."""

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network whose backward pass averages gradients over processes."""
        if self.count == 1:
            return network
        ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=ids)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes of a few numbers, in float64."""
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def gather(self, value: Any) -> list[Any]:
        """The value of each process, by rank."""
        values: list[Any] = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return values

    @contextlib.contextmanager
    def first_alone(self) -> Iterator[None]:
        """The block, in the first process before the others: it fills a cache that they read."""
        if self.count > 1 and self.rank:
            dist.barrier()
        yield
        if self.count > 1 and not self.rank:
            dist.barrier()


@contextlib.contextmanager
def joined(device: str = "auto") -> Iterator[Processes]:
    """Joins the processes that torchrun started; a process by itself is the only one.

    Args:
        device: "auto" takes the GPU with the process's local rank where there is one; "cpu";
            "cuda".

    Raises:
        TrainingError: No GPU for "cuda", or fewer GPUs than processes.
    """
    rank, local = (int(os.environ.get(name) or 0) for name in ("RANK", "LOCAL_RANK"))
    count = int(os.environ.get("WORLD_SIZE") or 1)
    chosen = _device(device, local)
    if count == 1:
        yield Processes(rank=0, count=1, device=chosen)
        return
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT)
    try:
        yield Processes(rank=rank, count=count, device=chosen)
    finally:
        dist.destroy_process_group()


def _device(name: str, local_rank: int) -> torch.device:
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not found):
        return torch.device("cpu")
    if not found:
        raise TrainingError("PyTorch finds no CUDA GPU here: use --device cpu.")
    if local_rank >= found:
        raise TrainingError(
            f"torchrun started more processes than this machine's {found} GPU(s): "
            f"use --nproc-per-node {found}."
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
