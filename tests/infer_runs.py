"""What a run of `bsm infer` gave."""

from __future__ import annotations

from typing import NamedTuple


class Outcome(NamedTuple):
    code: int
    out: str
    err: str
