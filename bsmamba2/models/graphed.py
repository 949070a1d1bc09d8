"""CUDA graphs of a network: the launches of a whole pass as one.

The folded network launches some 200 kernels a pass; on a fast GPU starting them one by one can
take longer than what they do.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bsmamba2.errors import short_reason, warn_once

logger = logging.getLogger(__name__)

Function = Callable[[Tensor], Tensor]
Capture = Callable[[Function, Tensor], Function]
"""Makes a function of one input shape faster; raises RuntimeError where it cannot."""

MAX_GRAPHS = 4
"""Shapes that are kept: whole batches, the last one of a song, and room for another batch size."""
_WARM_UP = 2  # passes before the capture: libraries choose and load their kernels in them


class GraphedNetwork:
    """A network that is captured once an input shape and replayed from then on.

    Of many shapes the last used MAX_GRAPHS are kept, each with its own buffers on the device.
    Where a capture fails the network runs as it is, with one line in the log. Not for several
    threads at once.
    """

    def __init__(self, network: Function, *, capture: Capture | None = None) -> None:
        """Wraps a network.

        Args:
            network: Without control flow over values.
            capture: Another way to capture than CUDA's, for tests.
        """
        self._network = network
        self._capture = capture or CudaCapture()
        self._replays: OrderedDict[torch.Size, Function] = OrderedDict()

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        """The network's output for `x`, which is on the network's device: a tensor of its own."""
        if x.shape not in self._replays:
            while len(self._replays) >= MAX_GRAPHS:
                self._replays.popitem(last=False)
            self._replays[x.shape] = self._captured(x)
        self._replays.move_to_end(x.shape)
        return self._replays[x.shape](x)

    def _captured(self, x: Tensor) -> Function:
        try:
            return self._capture(self._network, x)
        except RuntimeError as error:  # every error of CUDA is one
            reason = short_reason(error)
            warn_once(
                logger, f"The network runs without a CUDA graph, whose capture failed: {reason}"
            )
            return self._network


class CudaCapture:
    """Captures with PyTorch; all graphs of an object share one pool of memory.

    They may, because they are replayed one after the other and what they return is copied.
    """

    def __init__(self) -> None:
        self._pool: Any = None  # PyTorch's handle

    def __call__(self, network: Function, x: Tensor) -> Function:
        """Runs the network to warm up, then captures it; raises RuntimeError where it cannot."""
        with torch.cuda.device(x.device):
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            static_input, current = x.clone(), torch.cuda.current_stream()
            stream = torch.cuda.Stream()
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP):
                    network(static_input)
            current.wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                static_output = network(static_input)

        def replay(x: Tensor) -> Tensor:
            static_input.copy_(x)
            graph.replay()
            return static_output.clone()

        return replay
