"""Options of a TensorRT plan: the builder, the batch, the frames of a chunk."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.errors import ExportError
from bsmamba2.formats.trt_plan import BUILDERS

Range = tuple[int, int, int]
"""Smallest size, size to optimise for, largest size."""
_MAX_SIZE = (1 << 31) - 1  # builders refuse much smaller sizes themselves, with a reason


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Options of a plan; raises ExportError for values that no plan can have."""

    builder: str = "auto"
    """A key of BUILDERS, or "auto": TensorRT where it can build, otherwise TensorRT-RTX."""
    batch: int = 4
    """The largest batch, in chunks; the plan is optimised for it."""
    frames: str | None = None
    """Frames of a chunk, as `read_frames` takes them; None for the network's chunk length only."""
    plugin: Path | None = None
    """`libbsm_trt_plugin.so`; None takes the one in the cache, or builds it."""
    arch: str | None = None
    """GPUs to build the plugin for, as `build_libraries` takes them; None takes any build that
    fits this machine, or builds for its GPUs, or for all GPUs if it has none."""

    def __post_init__(self) -> None:
        if self.builder not in ("auto", *BUILDERS):
            known = ", ".join(BUILDERS)
            raise ExportError(f"Unknown builder '{self.builder}': choose auto, {known}.")
        if not 1 <= self.batch <= _MAX_SIZE:
            raise ExportError(f"The batch must be 1 to {_MAX_SIZE}, not {self.batch}.")
        if self.frames is not None:
            read_frames(self.frames)
        if self.plugin and self.arch:
            raise ExportError("A plugin given as a file is not built: leave out the architectures.")

    @property
    def batch_range(self) -> Range:
        """Sizes of a batch, optimised for the largest: most batches of a song are full."""
        return 1, self.batch, self.batch

    def command(self, source: str, target: str, builder: str) -> str:
        """Returns the `bsm export` command that builds the same plan.

        It does not name the plugin's file, whose path means nothing on another machine. There the
        command takes the plugin of `bsm plugin build`; add `--plugin FILE` for another one.

        Args:
            source: Name of the ONNX file, or "default".
            target: Name of the plan.
            builder: The builder that was used.
        """
        words = ["bsm", "export", source, "--trt", "-o", target, "--builder", builder]
        words += ["--batch", str(self.batch)]
        words += ["--frames", self.frames] if self.frames else []
        words += ["--arch", self.arch] if self.arch else []
        return shlex.join(words)


def read_frames(text: str) -> Range:
    """Reads frames of a chunk, "801", or "1:801:1601" for a range; raises ExportError."""
    numbers = text.split(":")
    if len(numbers) not in (1, 3) or not all(n.isascii() and n.isdigit() for n in numbers):
        raise ExportError(
            f"'{text}' is not a number of frames: write 801, or 1:801:1601 for the fewest, the "
            "number to optimise for, and the most."
        )
    fewest, optimal, most = (int(number) for number in (numbers * 3)[:3])
    if not 1 <= fewest <= optimal <= most <= _MAX_SIZE:
        raise ExportError(f"Frames must be 1 to {_MAX_SIZE}, in ascending order, not {text}.")
    return fewest, optimal, most
