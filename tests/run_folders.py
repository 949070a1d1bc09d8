"""The folder of a training run, written without training."""

from __future__ import annotations

from pathlib import Path

import torch
from faults_train import CONFIG

from bsmamba2.config.file import load_config
from bsmamba2.formats.metadata import Metadata, Provenance
from bsmamba2.training.identity import run_identity
from bsmamba2.training.run_folder import RunFolder
from bsmamba2.training.state import new_state


def write_run(run: Path) -> None:
    """Writes what `bsm train` would write at the third step, with random weights and no songs."""
    (run / "config.yaml").write_text(CONFIG)
    config = load_config(run / "config.yaml")
    state = new_state(config, torch.device("cpu"))
    with torch.no_grad():
        for weight in state.network.parameters():
            weight += 1  # the moving average has other weights
    state.step, state.best = 3, [(3, 1.0)]
    folder = RunFolder(run)
    folder.prepare(config, None)
    folder.save(
        {**run_identity(config, [], 1), **state.to_dict()},
        state.ema.module.state_dict(),
        Metadata(
            model=config.model,
            provenance=Provenance(source="a run", trained=True),
            stems=config.data.stems,
        ),
        is_best=True,
    )
