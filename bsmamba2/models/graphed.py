"""CUDA graphs of a network: all kernels of a pass in one launch.

The folded network launches some 200 kernels per pass; on a fast GPU, launching them one by one can
take longer than running them.
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
"""Captures a function for the shape of an example input; raises RuntimeError on failure."""

MAX_GRAPHS = 4
"""Graphs to keep: for full batches, a song's last batch, and both at another batch size."""
_WARM_UP = 2  # passes before the capture, in which libraries choose and load their kernels


class GraphedNetwork:
    """A network that is captured once for each input shape, and replayed from then on.

    Graphs are kept for the MAX_GRAPHS most recent shapes, each with its own buffers on the device.
    If a capture fails, the network runs without a graph, with one line in the log. Not
    thread-safe.
    """

    def __init__(self, network: Function, *, capture: Capture | None = None) -> None:
        """Wraps a network.

        Args:
            network: A network without control flow that depends on values.
            capture: Replaces CUDA's capture, for tests.
        """
        self._network = network
        self._capture = capture or CudaCapture()
        self._replays: OrderedDict[torch.Size, Function] = OrderedDict()

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        """Returns the network's output, a new tensor, for an `x` on the network's device."""
        if x.shape not in self._replays:
            while len(self._replays) >= MAX_GRAPHS:
                self._replays.popitem(last=False)
            self._replays[x.shape] = self._captured(x)
        self._replays.move_to_end(x.shape)
        return self._replays[x.shape](x)

    def _captured(self, x: Tensor) -> Function:
        try:
            return self._capture(self._network, x)
        except RuntimeError as error:  # CUDA errors, too
            reason = short_reason(error)
            warn_once(
                logger, f"The network runs without a CUDA graph: its capture failed ({reason})."
            )
            return self._network


class CudaCapture:
    """Captures with PyTorch; all graphs of an object share one memory pool.

    That is safe because they are replayed one after the other and their results are copied.
    """

    def __init__(self) -> None:
        self._pool: Any = None  # PyTorch's handle

    def __call__(self, network: Function, x: Tensor) -> Function:
        """Runs the network to warm up, then captures it; raises RuntimeError on failure."""
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
