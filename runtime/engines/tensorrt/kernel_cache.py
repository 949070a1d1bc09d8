"""Caches the kernels that TensorRT-RTX compiles for this GPU when a plan first runs.

Its plans hold no machine code: the first run of a shape compiles the kernels, which takes seconds.
The cache only saves time, so failures are only logged. TensorRT needs no such cache.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from bsmamba2.errors import BsmError
from bsmamba2.formats.trt_plan import PlanRecord
from bsmamba2.system.atomic import write_atomic
from bsmamba2.system.user_cache import cache_folder

logger = logging.getLogger(__name__)


class KernelCache:
    """Compiled kernels of one plan on one kind of GPU, in the user's cache folder."""

    def __init__(self, record: PlanRecord, capability: str) -> None:
        """Chooses the file's name; nothing is read or written yet.

        Args:
            record: The plan's sidecar.
            capability: The GPU's compute capability, such as "9.0".
        """
        self._name = f"{record.plan_sha256[:32]}-{record.builder_version}-{capability}.cache"
        self._path: Path | None = None
        self._cache: Any = None
        self._kept = b""

    def attach(self, config: Any) -> None:
        """Attaches the cache to an `IRuntimeConfig`; all contexts of a plan share it."""
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            self._kept = self._read()
            if self._kept and not self._cache.deserialize(self._kept):
                logger.info("%s is not used: another TensorRT-RTX or driver wrote it.", self._path)
        config.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """Writes the cache to disk if more kernels have been compiled."""
        if self._cache is None or self._path is None:
            return
        data = bytes(memoryview(self._cache.serialize()))
        if data == self._kept:
            return
        try:
            write_atomic(self._path, data)
            self._kept = data
        except BsmError as error:
            self._path = None
            logger.warning("Compiled kernels are not kept: %s", error)

    def _read(self) -> bytes:
        try:
            path = cache_folder("kernels") / self._name
            data = path.read_bytes() if path.exists() else b""
            self._path = path
            return data
        except (BsmError, OSError) as error:
            logger.warning("Compiled kernels are not kept: %s", error)
            return b""
