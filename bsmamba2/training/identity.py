"""Identity of a run: configuration, data and processes, which are compared when it is resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import bsmamba2
from bsmamba2.config.file import Config
from bsmamba2.config.reading import shown
from bsmamba2.data.tracks import Track
from bsmamba2.errors import TrainingError
from bsmamba2.system.files import existing_file, sha256_file
from bsmamba2.system.revision import git_revision

_FREE = {"training.workers", "training.keep_best", "training.checkpoint_minutes"}
"""Keys without effect on the weights."""
_FIXED = ("audio.", "network.")
"""Sections that a resumed run cannot change."""
_LISTED = 12  # differences listed in a message


def run_identity(
    config: Config, tracks: Sequence[Track], processes: int, start: Path | None = None
) -> dict[str, Any]:
    """Describes a run in plain values, for its checkpoints.

    Args:
        config: Configuration of the run.
        tracks: Tracks that it trains on.
        processes: Number of processes.
        start: Checkpoint of the initial weights; raises BsmError if there is no such file.
    """
    return {
        "version": bsmamba2.__version__,
        "revision": git_revision(bsmamba2.__file__),
        "config": json.loads(json.dumps(asdict(config))),
        "tracks": {track.name: track.frames for track in tracks},
        "processes": processes,
        "start": start and {"file": start.name, "sha256": sha256_file(existing_file(start))},
        "threads": torch.get_num_threads(),
    }


def check_same_run(
    saved: Mapping[str, Any], now: Mapping[str, Any], where: Path, *, allow_change: bool
) -> list[str]:
    """Compares a run with the checkpoint from which it is resumed.

    Args:
        saved: `run_identity` in the checkpoint.
        now: `run_identity` of the resumed run.
        where: Path of the checkpoint, for the message.
        allow_change: Accept differences other than those of audio and network.

    Returns:
        The accepted differences, each as "key: before -> now".

    Raises:
        TrainingError: There are differences that are not allowed; it lists them.
    """
    old, new = _compared(saved), _compared(now)
    names = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    changes = [
        f"{name}: {' -> '.join(shown(v[name]) if name in v else 'absent' for v in (old, new))}"
        for name in names
    ]
    if not changes:
        return []
    listed = "; ".join(changes[:_LISTED])
    if len(changes) > _LISTED:
        listed += f"; and {len(changes) - _LISTED} more"
    if any(name.startswith(_FIXED) for name in names):
        raise TrainingError(
            f"{where} belongs to another network ({listed}): undo that, or choose another --out."
        )
    if not allow_change:
        raise TrainingError(
            f"{where} belongs to another run ({listed}): undo that, choose another --out, or "
            "continue with --allow-config-change."
        )
    return changes


def _compared(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> value of everything that a resumed run should share with its checkpoint."""
    start = identity.get("start")  # absent in checkpoints of earlier versions
    values = {"processes": identity["processes"], "start": start and str(start["sha256"])}
    for section, keys in identity["config"].items():
        values |= {f"{section}.{key}": value for key, value in keys.items()}
    values |= {f"samples of track {shown(name, 300)}": n for name, n in identity["tracks"].items()}
    return {name: value for name, value in values.items() if name not in _FREE}
