"""Loads a network from a checkpoint, or makes one with random weights from a configuration."""

from __future__ import annotations

from pathlib import Path

import torch

from bsmamba2.checkpoints.weights import load_weights
from bsmamba2.formats.metadata import Metadata, Provenance
from bsmamba2.models.bsmamba2 import BSMamba2
from bsmamba2.models.source import check_source


def load_network(source: str | Path, *, seed: int = 0) -> tuple[BSMamba2, Metadata]:
    """Returns a float32 network on the CPU, in evaluation mode, and its metadata.

    Args:
        source: A `.safetensors` checkpoint; or the name or YAML file of a configuration, for
            random weights.
        seed: Seed of the random weights.

    Raises:
        BsmError: There is no such file, or no network in it.
    """
    source = Path(source)
    config = check_source(source)
    if config is None:
        tensors, metadata = load_weights(source)
        network = BSMamba2(metadata.model)
        network.load_state_dict(tensors)
        return network.eval(), metadata
    model = config.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = BSMamba2(model)
    provenance = Provenance(
        source=f"random weights of {source.name}, seed {seed}", licence="none", trained=False
    )
    return network.eval(), Metadata(model=model, provenance=provenance)
