"""Separate songs into stems, without PyTorch.

    separator = Separator(load_engine())
    stems = separator.separate(mixture, sample_rate)  # {"vocals": ..., "instrumental": ...}

`runtime.audio` reads and writes audio files; `docs/python.md` has examples of everything.
"""

from bsmamba2.runtime.engines import Engine, EngineOptions, load_engine
from bsmamba2.runtime.separation.separator import Separator

__all__ = ["Engine", "EngineOptions", "Separator", "load_engine"]
