"""Keeps the salient segments of each track in a small file, beside the data or elsewhere."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from bsmamba2.config.model import AudioConfig
from bsmamba2.config.training import DataConfig
from bsmamba2.data.tracks import Track
from bsmamba2.errors import BsmError
from bsmamba2.system.atomic import write_atomic

logger = logging.getLogger(__name__)

CACHE_FOLDER = ".bsmamba2"
"""Beside the folders of the splits."""
_VERSION = 2  # of the rule and of the file's format


class SalienceCache:
    """Salient segments by track.

    What was kept holds as long as the parameters and the sizes of the track's files are the same
    and none of them is younger; otherwise, or when it is damaged, it counts as not kept. Files
    appear whole under their names, so any number of processes may read and write.
    """

    def __init__(self, folder: Path | None, data: DataConfig, audio: AudioConfig) -> None:
        """Uses `folder`, or `CACHE_FOLDER` in the data folder of each track."""
        self._folder = folder
        self._stems = data.stems
        self._rule = {
            "version": _VERSION,
            "window": audio.chunk_samples,
            "overlap": data.salient_overlap,
            "pieces": data.salient_pieces,
            "quantile": data.salient_quantile,
            "floor": data.salient_floor,
            "share": data.salient_share,
        }
        self._warned = False

    def path(self, track: Track) -> Path:
        """The track's file for these parameters."""
        own = track.folder.parent.parent / CACHE_FOLDER
        place = str(track.folder.absolute()) if self._folder else None  # data folders may share it
        names = [place, track.folder.parent.name, track.name, self._stems, self._rule]
        digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
        return (self._folder or own) / f"salience-{digest[:24]}.json"

    def load(self, track: Track) -> dict[str, list[int]] | None:
        """Stem -> starts, or None if they are not kept."""
        path = self.path(track)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(path.read_text("utf-8"))
            files = [track.stem(stem).stat() for stem in self._stems]
            young = max(file.st_mtime_ns for file in files) > path.stat().st_mtime_ns
            if not young and kept["key"] == self._key(track):
                return {stem: [int(s) for s in kept["starts"][stem]] for stem in self._stems}
        return None

    def save(self, track: Track, starts: dict[str, list[int]]) -> None:
        """Keeps them; where that is impossible, says so once."""
        try:
            text = json.dumps({"key": self._key(track), "starts": starts})
            write_atomic(self.path(track), text)
        except (BsmError, OSError) as error:
            if not self._warned:
                logger.warning(
                    "Salient segments will be looked for again next time, name a cache folder "
                    "that can be written: %s",
                    error,
                )
            self._warned = True

    def _key(self, track: Track) -> dict[str, Any]:
        sizes = {stem: track.stem(stem).stat().st_size for stem in self._stems}
        return {**self._rule, "track": track.name, "bytes": sizes}
