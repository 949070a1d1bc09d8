"""What makes a run this run: configuration, data, processes; compared when it is resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import bsmamba2
from bsmamba2.config.file import Config
from bsmamba2.config.reading import shown
from bsmamba2.errors import TrainingError
from bsmamba2.system.files import existing_file, sha256_file
from bsmamba2.system.revision import git_revision

if TYPE_CHECKING:
    from bsmamba2.data.tracks import Track

_FREE = ("training.workers", "training.keep_best", "training.checkpoint_minutes")
"""Keys that change no weight."""
_FIXED = ("audio", "network")
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
    old, new = _flat(saved["config"]), _flat(now["config"])
    old["processes"], new["processes"] = saved["processes"], now["processes"]
    old["start"], new["start"] = _start_hash(saved), _start_hash(now)
    changed = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    changed = [key for key in changed if key not in _FREE]
    differences = [f"{key}: {shown(old.get(key))} -> {shown(new.get(key))}" for key in changed]
    differences += _track_differences(saved["tracks"], now["tracks"])
    if not differences:
        return []
    listed = "; ".join(differences[:_LISTED])
    if len(differences) > _LISTED:
        listed += f"; and {len(differences) - _LISTED} more"
    if any(key.partition(".")[0] in _FIXED for key in changed):
        raise TrainingError(
            f"{where} is of another network ({listed}): undo that, or choose another --out."
        )
    if not allow_change:
        raise TrainingError(
            f"{where} is of another run ({listed}): undo that, choose another --out, or go on "
            "with --allow-config-change."
        )
    return differences


def _start_hash(identity: Mapping[str, Any]) -> str | None:
    """Of the checkpoint of the first weights; None for random ones."""
    start = identity.get("start")  # absent in checkpoints of earlier versions
    return start and str(start["sha256"])


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{section}.{key}": value
        for section, values in config.items()
        for key, value in values.items()
    }


def _track_differences(old: Mapping[str, int], new: Mapping[str, int]) -> list[str]:
    differences = [f"track {shown(name)} is gone" for name in sorted(old.keys() - new.keys())]
    differences += [f"track '{name}' is new" for name in sorted(new.keys() - old.keys())]
    return differences + [
        f"track '{name}': {shown(old[name])} -> {new[name]} samples"
        for name in sorted(old.keys() & new.keys())
        if old[name] != new[name]
    ]
