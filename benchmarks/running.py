"""A stack under measurement, seen from outside: where it is, and what its processes use.

Everything is read from ``/proc``; where there is none, all is 0.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

_PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@attrs.frozen
class Usage:
    """What some processes have used, summed. Memory that they share counts for each of them."""

    cpu_s: float
    rss_mib: float
    peak_rss_mib: float  # the sum of their peaks, which need not have been at the same time


@attrs.frozen
class RunningStack:
    """Servers and app, ready to take tasks at ``url``. The process trees of ``roots`` are all of
    it: what a process leaves to itself (a daemon) has to be a root of its own."""

    url: str
    roots: tuple[int, ...]

    def usage(self) -> Usage:
        """What all its processes have used until now."""
        return usage_of(self.roots)


def usage_of(roots: Iterable[int]) -> Usage:
    """What the processes below ``roots``, and they themselves, have used.

    The CPU time of children that have ended counts once their parent has waited for them; their
    memory is gone.
    """
    cpu_s = rss = peak = 0.0
    for pid in trees(roots):
        cpu_s += _cpu_s(pid)
        status = _read(pid, "status")
        rss += _mib(status, "VmRSS")
        peak += _mib(status, "VmHWM")
    return Usage(cpu_s, rss, peak)


def trees(roots: Iterable[int]) -> set[int]:
    """The processes ``roots`` and all below them."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir() if _PROC.is_dir() else ():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    ahead = list(roots)
    while ahead:
        pid = ahead.pop()
        if pid not in found:
            found.add(pid)
            ahead += children.get(pid, [])
    return found


def _cpu_s(pid: int) -> float:
    """User and system time, its own and that of the children it has waited for."""
    fields = _stat(pid)
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS


def _stat(pid: int) -> list[str]:
    """The fields behind the name, which may hold blanks; none if the process is gone."""
    return _read(pid, "stat").rpartition(")")[2].split()


def _mib(status: str, name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def _read(pid: int, name: str) -> str:
    try:
        return (_PROC / str(pid) / name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
