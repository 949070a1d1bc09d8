"""Runs `bsm` on a terminal of its own, and watches its bar and its memory."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_BAR = re.compile(r"(\d+)/(\d+) s \[([\d:]+)<([\d:?]+)")
_RSS_EVERY_S = 0.5
_COLUMNS = 160


@dataclass(frozen=True)
class Point:
    """What the bar said at one time."""

    done: float
    """Part of the audio, 0 to 1."""
    elapsed_s: float
    remaining_s: float | None
    """None where the bar showed '?'."""
    rss_mib: int
    """Memory of the process at about that time."""


@dataclass
class Watched:
    """A command that ended."""

    code: int = 0
    elapsed_s: float = 0.0
    peak_mib: int = 0
    text: str = ""
    """The last of what it wrote to its terminal."""
    points: list[Point] = field(default_factory=list)

    def rss_at(self, part: float) -> int | None:
        """Memory when that part of the audio was done, in MiB."""
        point = min(self.points, key=lambda one: abs(one.done - part), default=None)
        return None if point is None else point.rss_mib


def watch(arguments: Sequence[str], *, interrupt_after_s: float | None = None) -> Watched:
    """Runs `bsm ARGUMENTS` to its end.

    Args:
        arguments: Of the command.
        interrupt_after_s: When to send SIGINT, as Ctrl-C does.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, _COLUMNS, 0, 0))
    started = time.monotonic()
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("bsm")), *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    watched, status = Watched(), Path(f"/proc/{process.pid}/status")
    seen, rss, rss_at = "", 0, 0.0
    while True:
        now = time.monotonic()
        if interrupt_after_s is not None and now - started >= interrupt_after_s:
            process.send_signal(signal.SIGINT)
            interrupt_after_s = None
        if now - rss_at > _RSS_EVERY_S:
            rss, rss_at = _status_mib(status, "VmRSS"), now
            watched.peak_mib = max(watched.peak_mib, _status_mib(status, "VmHWM"))
        if not select.select([master], [], [], 0.2)[0]:
            continue
        try:
            data = os.read(master, 1 << 16)
        except OSError:  # Linux says EIO when the other end is closed
            data = b""
        if not data:
            break
        seen = (seen + data.decode("utf-8", "replace"))[-8192:]
        _note(watched, seen, rss)
    os.close(master)
    watched.code = process.wait()
    watched.elapsed_s = time.monotonic() - started
    watched.text = seen.replace("\r", "\n")
    return watched


def _note(watched: Watched, seen: str, rss_mib: int) -> None:
    """The newest state of the bar, if there is a new one."""
    found = _BAR.findall(seen)
    if not found:
        return
    done, total, elapsed, remaining = found[-1]
    part = int(done) / max(1, int(total))
    if watched.points and watched.points[-1].done == part:
        return
    left = None if "?" in remaining else _seconds(remaining)
    watched.points.append(Point(part, _seconds(elapsed), left, rss_mib))


def _seconds(clock: str) -> float:
    total = 0
    for field_ in clock.split(":"):
        total = 60 * total + int(field_ or 0)
    return float(total)


def _status_mib(status: Path, name: str) -> int:
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith(name)), 0)
