"""Which items of the endless sequence a process draws.

Item numbers count from the start of training and mean the same mixture for any number of
processes or workers (`bsmamba2.data.mixing`). A forward pass of all processes together takes the
next `processes * batch_size` numbers, and each process a run of `batch_size` of those: two
processes do with a batch of b what one does with 2 b.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler


class GlobalBatches(Sampler[list[int]]):
    """Item numbers of one process, a list for each forward pass, without end."""

    def __init__(self, *, first_item: int, batch_size: int, rank: int, processes: int) -> None:
        """Starts at a position.

        Args:
            first_item: Number of the first item that nobody has drawn yet.
            batch_size: Items of a process and forward pass.
            rank: Of this process.
            processes: How many.
        """
        self._first = first_item + rank * batch_size
        self._batch_size = batch_size
        self._stride = processes * batch_size

    def __iter__(self) -> Iterator[list[int]]:
        """Lists of `batch_size` item numbers."""
        start = self._first
        while True:
            yield list(range(start, start + self._batch_size))
            start += self._stride
