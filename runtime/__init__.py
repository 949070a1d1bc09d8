"""From audio to stems, without torch: STFT, engine, mask, inverse STFT, files."""

from bsmamba2.runtime.engines import Engine, EngineOptions, load_engine
from bsmamba2.runtime.separation.separator import Separator

__all__ = ["Engine", "EngineOptions", "Separator", "load_engine"]
