"""The full-size network's way from a foreign file to an engine, once for all slow tests."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from processes import bsm_json

from bsmamba2.models.load import load_network


class Chain(NamedTuple):
    """Files of the way, and what the commands reported."""

    foreign: Path
    checkpoint: Path
    engine: Path
    imported: dict[str, Any]
    exported: dict[str, Any]
    seconds: dict[str, float]


def make_chain(folder: Path) -> Chain:
    """A file as Music-Source-Separation-Training keeps it, imported and exported."""
    foreign, checkpoint, engine = (
        folder / name for name in ("bs_mamba2_vocals.ckpt", "full.safetensors", "full.onnx")
    )
    network, _ = load_network("bsmamba2", seed=11)
    torch.save(network.state_dict(), foreign)
    del network
    start = time.perf_counter()
    imported = bsm_json("import", foreign, "-o", checkpoint)
    between = time.perf_counter()
    exported = bsm_json("export", checkpoint, "-o", engine)
    seconds = {"import": between - start, "export": time.perf_counter() - between}
    return Chain(foreign, checkpoint, engine, imported, exported, seconds)
