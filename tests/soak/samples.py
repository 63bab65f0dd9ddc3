"""What is written down of a running server: its memory, descriptors, files, loop and load."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from benchmarks.running import usage_of
from tests.soak.load import Told

MIB: Final = 1024 * 1024


class Gone(Exception):
    """The server is not there any more."""


@attrs.frozen(kw_only=True)
class Sample:
    """One moment. Rates, lags and percentiles are those since the sample before."""

    at_s: float  # since the load began
    rss_mib: float
    descriptors: int
    own_descriptors: int  # without those that the load holds the other end of
    wal_mib: float
    database_mib: float
    lags: dict[int, int]  # whole milliseconds, rounded up -> how often the loop was so late
    lag_p99_ms: float | None
    trio_tasks: int
    tasks_per_s: float  # ended
    create_p95_ms: float | None
    open: int  # accepted and not ended
    waited: float  # part of the time that the loop's thread was ready and got no processor
    cpu: float  # processors that the server kept busy
    machine_load: float  # of everything on the machine


class Sampler:
    """Reads a server from outside, and what its launcher and the load tell."""

    def __init__(self, pid: int, database: Path, gauges: Path) -> None:
        self._pid, self._database = pid, database
        self._wal = database.with_name(f"{database.name}-wal")
        self._gauges, self._read_to = gauges, 0
        self._before = (0.0, 0, usage_of([pid]).cpu_s)  # seconds, tasks ended, CPU seconds
        self._trio_tasks = 0

    def __repr__(self) -> str:
        return f"<Sampler of {self._pid}>"

    def take(self, told: Told) -> Sample:
        """How it is now. Raises Gone."""
        usage, descriptors = usage_of([self._pid]), self._descriptors()
        if not usage.rss_mib:
            raise Gone
        lags, waited_s = self._told_by_the_loop()
        at_s = told.at_s
        seconds = max(at_s - self._before[0], 1e-9)
        ended, cpu_s = told.ended - self._before[1], usage.cpu_s - self._before[2]
        self._before = (at_s, told.ended, usage.cpu_s)
        return Sample(
            at_s=at_s,
            rss_mib=usage.rss_mib,
            descriptors=descriptors,
            own_descriptors=descriptors - told.connections,
            wal_mib=_size(self._wal) / MIB,
            database_mib=_size(self._database) / MIB,
            lags=dict(lags),
            lag_p99_ms=lag_percentile([lags], 99),
            trio_tasks=self._trio_tasks,
            tasks_per_s=ended / seconds,
            create_p95_ms=told.create_p95_ms,
            open=told.open,
            waited=waited_s / seconds,
            cpu=cpu_s / seconds,
            machine_load=os.getloadavg()[0],
        )

    def _descriptors(self) -> int:
        try:
            return len(os.listdir(f"/proc/{self._pid}/fd"))
        except OSError:
            raise Gone from None

    def _told_by_the_loop(self) -> tuple[Counter[int], float]:
        """How late it was, and how long it waited for a processor, since the last time."""
        lags, waited_s = Counter[int](), 0.0
        if not self._gauges.exists():
            return lags, waited_s
        with self._gauges.open("rb") as file:
            file.seek(self._read_to)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read_to += len(line)
                told = json.loads(line)
                lags.update({int(late): count for late, count in told["lags"].items()})
                self._trio_tasks = told["trioTasks"]
                waited_s += told["waitedS"]
        return lags, waited_s


def lag_percentile(counted: Iterable[Mapping[int, int]], percent: float) -> float | None:
    """Nearest rank, in milliseconds; None if nothing was measured."""
    total: Counter[int] = Counter()
    for lags in counted:
        total.update(lags)
    rank, seen = math.ceil(total.total() * percent / 100), 0
    for late in sorted(total):
        seen += total[late]
        if seen >= rank:
            return float(late)
    return None


def after(samples: Sequence[Sample], warm_s: float) -> list[Sample]:
    """Without the warm-up."""
    return [sample for sample in samples if sample.at_s >= warm_s]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
