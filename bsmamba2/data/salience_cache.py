"""Cache of salient segments: a small file for each track, in the data folder or elsewhere."""

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
"""Name of the default folder, which lies beside the folders of the splits."""
_VERSION = 3  # increase it when the rule or the file format changes


class SalienceCache:
    """Salient segments by track.

    The name of a cache file is a hash of the parameters and of the names, sizes and times of the
    track's files. A cache file is ignored if it is damaged. It is written atomically, so any number
    of processes may read and write.
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
        """The track's cache file for these parameters; raises OSError."""
        own = track.folder.parent.parent / CACHE_FOLDER
        place = str(track.folder.absolute()) if self._folder else None  # datasets may share it
        files = {}
        for stem in self._stems:
            path = track.stem(stem)
            status = path.stat()
            files[stem] = (path.name, status.st_size, status.st_mtime_ns)
        key = [place, track.folder.parent.name, track.name, files, self._rule]
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        return (self._folder or own) / f"salience-{digest[:24]}.json"

    def load(self, track: Track) -> dict[str, list[int]] | None:
        """Returns stem -> starts, or None if they are not cached."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(self._path(track).read_text("utf-8"))
            return {stem: [int(start) for start in kept[stem]] for stem in self._stems}
        return None

    def save(self, track: Track, starts: dict[str, list[int]]) -> None:
        """Writes the track's cache file; warns once if that is impossible."""
        try:
            write_atomic(self._path(track), json.dumps(starts))
        except (BsmError, OSError):
            folder = self._folder or track.folder.parent.parent
            warn_once(
                logger,
                f"Salient segments cannot be cached, because {folder} is not writable: they will "
                "be searched for again next time, unless --cache names a writable folder.",
            )
