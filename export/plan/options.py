"""What a TensorRT plan is to be like: which builder, how many chunks, how many frames."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.errors import ExportError
from bsmamba2.formats.trt_plan import BUILDERS

Range = tuple[int, int, int]
"""Fewest, as optimised for, most."""
_MAX_SIZE = (1 << 31) - 1  # a builder refuses less, and says why


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What can be chosen of a plan; raises ExportError for values that no plan can have."""

    builder: str = "auto"
    """A key of BUILDERS, or "auto": TensorRT where it can build, else TensorRT-RTX."""
    batch: int = 4
    """The most chunks at a time; the plan is optimised for as many."""
    frames: str | None = None
    """Frames of a chunk, as `read_frames` takes them; None for the network's own chunks only."""
    plugin: Path | None = None
    """`libbsm_trt_plugin.so`; None takes the one in the cache, or builds it."""
    arch: str | None = None
    """GPUs to build the plugin for, as `build_libraries` takes them; None takes any build that
    fits this machine, or builds for its GPUs, without any for all."""

    def __post_init__(self) -> None:
        if self.builder not in ("auto", *BUILDERS):
            known = ", ".join(BUILDERS)
            raise ExportError(f"Unknown builder '{self.builder}': choose auto, {known}.")
        if not 1 <= self.batch <= _MAX_SIZE:
            raise ExportError(f"The batch must be 1 to {_MAX_SIZE}, not {self.batch}.")
        if self.frames is not None:
            read_frames(self.frames)
        if self.plugin and self.arch:
            raise ExportError("A plugin that is named is not built: leave the architectures out.")

    @property
    def batch_range(self) -> Range:
        """Chunks at a time. A song has more than a batch, so most batches are the largest."""
        return 1, self.batch, self.batch

    def command(self, source: str, target: str, builder: str) -> str:
        """The `bsm export` command that builds the same.

        A plugin's file is not named: its path means nothing on another machine. There the command
        takes the plugin of `bsm plugin build`; add `--plugin FILE` for another one.

        Args:
            source: Name of the ONNX file, or "default".
            target: Name of the plan.
            builder: The one that was taken.
        """
        words = ["bsm", "export", source, "--trt", "-o", target, "--builder", builder]
        words += ["--batch", str(self.batch)]
        words += ["--frames", self.frames] if self.frames else []
        words += ["--arch", self.arch] if self.arch else []
        return shlex.join(words)


def read_frames(text: str) -> Range:
    """Frames of a chunk from "801", or "1:801:1601" for a range; raises ExportError."""
    numbers = text.split(":")
    if len(numbers) not in (1, 3) or not all(n.isascii() and n.isdigit() for n in numbers):
        raise ExportError(
            f"'{text}' is no number of frames: write 801, or 1:801:1601 for the fewest, as many as "
            "to optimise for, and the most."
        )
    fewest, optimal, most = (int(number) for number in (numbers * 3)[:3])
    if not 1 <= fewest <= optimal <= most <= _MAX_SIZE:
        raise ExportError(f"Frames must be 1 to {_MAX_SIZE} and in rising order, not {text}.")
    return fewest, optimal, most
