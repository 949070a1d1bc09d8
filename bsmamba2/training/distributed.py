"""Training in one process, or in several started by torchrun."""

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

_TIMEOUT = datetime.timedelta(hours=2)  # long enough to validate or to search a whole dataset


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process, as one of those that train together."""

    rank: int
    """Rank of this process; rank 0 writes the files and reports."""
    count: int
    """Number of processes."""
    device: torch.device
    """Device of this process."""

    def wrap(self, network: nn.Module) -> nn.Module:
        """Returns the network with a backward pass that averages gradients over processes."""
        if self.count == 1:
            return network
        ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=ids)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums each of a few numbers over all processes, in float64."""
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all processes, by rank."""
        values: list[Any] = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return values

    @contextlib.contextmanager
    def first_alone(self) -> Iterator[None]:
        """Runs the block in the first process before the others, so that it can fill a cache."""
        if self.count > 1 and self.rank:
            dist.barrier()
        yield
        if self.count > 1 and not self.rank:
            dist.barrier()


@contextlib.contextmanager
def joined(device: str = "auto") -> Iterator[Processes]:
    """Joins the process group that torchrun started; without torchrun, it is a group of one.

    Args:
        device: "cpu", "cuda", or "auto": the GPU with the process's local rank, if there is one.

    Raises:
        TrainingError: "cuda" without a GPU, or fewer GPUs than processes.
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
            f"torchrun started more processes than this machine has GPUs ({found}): "
            f"use --nproc-per-node {found}."
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
