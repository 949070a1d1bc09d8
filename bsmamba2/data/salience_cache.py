"""Keeps the salient segments of each track in a small file, beside the data or elsewhere."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from pathlib import Path

from bsmamba2.config.model import AudioConfig
from bsmamba2.config.training import DataConfig
from bsmamba2.data.tracks import Track
from bsmamba2.errors import BsmError, warn_once
from bsmamba2.system.atomic import write_atomic

logger = logging.getLogger(__name__)

CACHE_FOLDER = ".bsmamba2"
"""Beside the folders of the splits."""
_VERSION = 3  # of the rule and of the file's format


class SalienceCache:
    """Salient segments by track.

    What was kept holds as long as the parameters and the sizes of the track's files are the same,
    of which the name of the cache's file is made, and none of them is younger; otherwise, or when
    it is damaged, it counts as not kept. Files appear whole under their names, so any number of
    processes may read and write.
    """

    def __init__(self, folder: Path | None, data: DataConfig, audio: AudioConfig) -> None:
        """Uses `folder`, or `CACHE_FOLDER` in the data folder of each track."""
        self._folder = folder
        self._stems = data.stems
        self._rule = [
            _VERSION,
            audio.chunk_samples,
            data.salient_overlap,
            data.salient_pieces,
            data.salient_quantile,
            data.salient_floor,
            data.salient_share,
        ]

    def _path(self, track: Track) -> Path:
        """The track's file for these parameters; raises OSError."""
        own = track.folder.parent.parent / CACHE_FOLDER
        place = str(track.folder.absolute()) if self._folder else None  # data folders may share it
        sizes = {stem: track.stem(stem).stat().st_size for stem in self._stems}
        key = [place, track.folder.parent.name, track.name, sizes, self._rule]
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        return (self._folder or own) / f"salience-{digest[:24]}.json"

    def load(self, track: Track) -> dict[str, list[int]] | None:
        """Stem -> starts, or None if they are not kept."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            path = self._path(track)
            changed = max(track.stem(stem).stat().st_mtime_ns for stem in self._stems)
            if changed <= path.stat().st_mtime_ns:
                kept = json.loads(path.read_text("utf-8"))
                return {stem: [int(start) for start in kept[stem]] for stem in self._stems}
        return None

    def save(self, track: Track, starts: dict[str, list[int]]) -> None:
        """Keeps them; where that is impossible, says so once."""
        try:
            write_atomic(self._path(track), json.dumps(starts))
        except (BsmError, OSError):
            folder = self._folder or track.folder.parent.parent
            warn_once(
                logger,
                f"Salient segments will be looked for again next time, {folder} cannot be written: "
                "name a cache folder that can.",
            )
