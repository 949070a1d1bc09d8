"""TensorRT's timing cache: what a builder has measured on this GPU, kept for the next plan.

It only saves time, so whatever is wrong with it is a warning. TensorRT-RTX has none.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bsmamba2.errors import BsmError
from bsmamba2.export.plan.builder import PlanBuilder
from bsmamba2.plugins.architectures import current_gpu_name
from bsmamba2.system.atomic import write_atomic
from bsmamba2.system.user_cache import cache_folder

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def timing_cache(builder: PlanBuilder, config: Any) -> Iterator[None]:
    """Gives a builder's configuration the cache of earlier builds, and keeps what it adds.

    Args:
        builder: Its version and the GPU's capability and name make the file's name, in the
            user's cache folder, private to them.
        config: An `IBuilderConfig`.
    """
    if builder.name != "tensorrt":
        yield
        return
    path: Path | None = None
    try:
        path = _cache_file(builder)
        data = path.read_bytes() if path.exists() else b""
    except (BsmError, OSError) as error:
        logger.warning("Building without a timing cache: %s", error)
        data = b""
    cache = config.create_timing_cache(data)
    # A cache of another GPU of the same architecture is refused, and an empty one taken.
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    yield
    if path is not None:
        _keep(path, config.get_timing_cache())


def _keep(path: Path, cache: Any) -> None:
    if cache is None:
        return
    try:
        write_atomic(path, bytes(memoryview(cache.serialize())))
    except BsmError as error:
        logger.warning("The timing cache is not kept: %s", error)


def _cache_file(builder: PlanBuilder) -> Path:
    words = (*builder.architectures, *re.findall(r"[A-Za-z0-9]+", current_gpu_name()))
    gpu = "-".join(words)
    return cache_folder("timing") / f"{builder.name}-{builder.trt.__version__}-{gpu}.cache"
