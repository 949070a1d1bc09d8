"""What makes a run this run: configuration, data, processes; compared when it is resumed."""

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
"""Keys that change no weight."""
_FIXED = ("audio.", "network.")
"""Sections that no resumed run can change."""
_LISTED = 12  # differences that a message names


def run_identity(
    config: Config, tracks: Sequence[Track], processes: int, start: Path | None = None
) -> dict[str, Any]:
    """Plain values that a checkpoint carries.

    Args:
        config: Of the run.
        tracks: Songs that it hears.
        processes: How many train.
        start: Checkpoint of the first weights; BsmError if there is no such file.
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
    """What changed since a checkpoint.

    Args:
        saved: `run_identity` in the checkpoint.
        now: `run_identity` of the run that resumes.
        where: The checkpoint, for the message.
        allow_change: Go on with differences, except of the network's.

    Returns:
        The differences, each as "key: before -> now".

    Raises:
        TrainingError: Differences that are not allowed, all of them listed.
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
            f"{where} is of another network ({listed}): undo that, or choose another --out."
        )
    if not allow_change:
        raise TrainingError(
            f"{where} is of another run ({listed}): undo that, choose another --out, or go on "
            "with --allow-config-change."
        )
    return changes


def _compared(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> value of all that a resumed run should share with its checkpoint."""
    start = identity.get("start")  # absent in checkpoints of earlier versions
    values = {"processes": identity["processes"], "start": start and str(start["sha256"])}
    for section, keys in identity["config"].items():
        values |= {f"{section}.{key}": value for key, value in keys.items()}
    values |= {f"samples of track {shown(name, 300)}": n for name, n in identity["tracks"].items()}
    return {name: value for name, value in values.items() if name not in _FREE}
