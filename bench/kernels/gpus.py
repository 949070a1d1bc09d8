"""Limits of a multiprocessor of each architecture, and how many blocks it holds at a time.

From the table "Technical Specifications per Compute Capability" of NVIDIA's CUDA C++ Programming
Guide 13.0.
"""

from __future__ import annotations

from dataclasses import dataclass

WARP = 32
_REGISTERS = 65536  # per multiprocessor, on all of these
_REGISTER_UNIT = 256  # registers are allocated to a warp in units of this size
_RESERVED = 1024  # bytes of every block's shared memory that CUDA keeps for itself
_SHARED_UNIT = 128  # bytes


@dataclass(frozen=True)
class Gpu:
    """Limits of a multiprocessor."""

    warps: int
    """Most resident warps."""
    blocks: int
    """Most resident blocks."""
    shared_kib: int
    """Shared memory."""

    @property
    def block_shared_bytes(self) -> int:
        """The most shared memory that a block may request."""
        return self.shared_kib * 1024 - _RESERVED


GPUS = {
    80: Gpu(64, 32, 164),
    86: Gpu(48, 16, 100),
    89: Gpu(48, 24, 100),
    90: Gpu(64, 32, 228),
    100: Gpu(64, 32, 228),
    120: Gpu(48, 24, 100),
}
"""Limits by compute capability, 90 for 9.0."""


def occupancy(
    gpu: Gpu, *, threads: int, registers: int, shared_bytes: int
) -> tuple[int, float, str]:
    """Returns the blocks that a multiprocessor holds, their share of its warps, and their limit.

    Args:
        gpu: Limits of the multiprocessor.
        threads: Threads of a block.
        registers: Registers of a thread.
        shared_bytes: Shared memory of a block that the launch requests.
    """
    warps = -(-threads // WARP)
    of_warp = -(-registers * WARP // _REGISTER_UNIT) * _REGISTER_UNIT
    # Each of the four parts of a multiprocessor has a quarter of the registers for its own warps.
    warps_by_registers = _REGISTERS // 4 // of_warp * 4
    of_block = -(-shared_bytes // _SHARED_UNIT) * _SHARED_UNIT + _RESERVED
    fits = {
        "registers": warps_by_registers // warps,
        "shared memory": gpu.shared_kib * 1024 // of_block,
        "warps": gpu.warps // warps,
        "blocks": gpu.blocks,
    }
    limit = min(fits, key=lambda name: fits[name])
    return fits[limit], fits[limit] * warps / gpu.warps, limit
