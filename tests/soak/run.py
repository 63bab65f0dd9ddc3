"""Runs a soak: how much can the server do, and then 70 % of that for as long as was asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from benchmarks.stack import ROOT, Running, open_process
from tests.soak.load import Plan, Told
from tests.soak.samples import Gone, Sample, Sampler
from tests.soak.serve import growth_file

SHARE: Final = 0.7  # of the capacity
_RAMP: Final = 0.5  # of the measurement of the capacity is not counted
_KEPT: Final = 0.2  # of it: what is finished is removed for as long as it is counted
_SPARE_S: Final = 60.0
_GROWTH_S: Final = 60.0
_DATABASE: Final = "soak.db"
_GAUGES: Final = "gauges.jsonl"

Say = Callable[[str], None]


class Broken(Exception):
    """The soak could not be brought to its end; the text says why."""


@attrs.frozen(kw_only=True)
class Settings:
    """What is run. ``rate`` is creates a second; None: a share of the capacity, measured before."""

    seconds: float
    rate: float | None = None
    capacity_s: float = 40.0
    sampled_every_s: float = 1.0
    said_every_s: float = 30.0
    warm_s: float = 60.0  # of the samples, nothing is concluded from these
    retention_s: float = 30.0  # of events, finished tasks and keys
    visitors: int = 6
    trace: bool = False
    leak_kib_s: float = 0.0

    @staticmethod
    def of(seconds: float, *, trace: bool = False, leak_kib_s: float = 0.0) -> Settings:
        """What suits a soak of this length: before anything is concluded, whatever is kept has been
        removed many times over, and the worst moments of a noisy machine have come: what memory a
        process holds after the longest queue it ever had is settled only then (seen: 33 minutes)."""
        warm_s = min(3600.0, seconds / 2)
        return Settings(
            seconds=seconds,
            sampled_every_s=min(5.0, max(1.0, seconds / 720)),
            said_every_s=min(60.0, max(10.0, seconds / 30)),
            warm_s=warm_s,
            retention_s=max(10.0, min(120.0, warm_s / 4)),
            trace=trace,
            leak_kib_s=leak_kib_s,
        )


@attrs.frozen(kw_only=True)
class Report:
    """What was seen."""

    settings: Settings
    capacity: float | None  # tasks a second; None: not measured
    rate: float  # creates a second that were due
    samples: list[Sample]
    told: Told  # by the load, at its end
    growth: str | None = None  # which lines of code held more memory; None: not traced


async def soak(settings: Settings, say: Say) -> Report:
    """Raises Broken, and ``benchmarks.stack.StartError``."""
    capacity, rate = None, settings.rate
    if rate is None:
        say(f"measuring the capacity for {settings.capacity_s:g} s")
        capacity = await _measure(settings)
        rate = SHARE * capacity
        say(f"{capacity:,.0f} tasks/s; {SHARE:.0%} of it are {rate:,.0f}/s")
    plan = partial(_plan, settings, settings.seconds, rate)
    async with _open_server(settings, settings.retention_s) as (server, place):
        watch = _Watch(settings, server, place, say)
        told = await _drive(plan(server.url), place, watch.note)
        growth = await watch.growth() if settings.trace else None
    return Report(
        settings=settings,
        capacity=capacity,
        rate=rate,
        samples=watch.samples,
        told=told,
        growth=growth,
    )


async def _measure(settings: Settings) -> float:
    """Tasks a second of the same mix on a server of its own, as fast as they are answered, while as
    many that have ended are removed, as in the soak itself."""
    told: list[Told] = []
    async with _open_server(settings, _KEPT * settings.capacity_s) as (server, place):
        plan = _plan(settings, settings.capacity_s, None, server.url)
        await _drive(plan, place, told.append)
    counted = [each for each in told if _RAMP <= each.at_s / settings.capacity_s <= 1]
    if len(counted) < 2 or counted[-1].ended == counted[0].ended:
        raise Broken("nothing was done while the capacity was measured")
    return (counted[-1].ended - counted[0].ended) / (counted[-1].at_s - counted[0].at_s)


def _plan(settings: Settings, seconds: float, rate: float | None, url: str) -> Plan:
    every_s = settings.sampled_every_s
    return Plan(
        url=url, seconds=seconds, rate=rate, told_every_s=every_s, visitors=settings.visitors
    )


class _Watch:
    """Samples the server whenever the load tells how it stands."""

    def __init__(self, settings: Settings, server: Running, place: Path, say: Say) -> None:
        self._settings, self._pid, self._say = settings, server.pid, say
        self._gauges = place / _GAUGES
        self._sampler = Sampler(server.pid, place / _DATABASE, self._gauges)
        self._said_s = 0.0
        self._traced = False
        self.samples: list[Sample] = []

    def note(self, told: Told) -> None:
        if told.final or told.at_s > self._settings.seconds + self._settings.sampled_every_s / 2:
            return
        try:
            sample = self._sampler.take(told)
        except Gone:
            raise Broken("the server has gone") from None
        self.samples.append(sample)
        if self._settings.trace and not self._traced and told.at_s >= self._settings.warm_s:
            self._traced = True
            os.kill(self._pid, signal.SIGUSR1)
        if told.at_s - self._said_s >= self._settings.said_every_s:
            self._said_s = told.at_s
            self._say(_line(told, sample, self._settings.seconds))

    async def growth(self) -> str:
        """Which lines of code hold more memory now than after the warm-up."""
        os.kill(self._pid, signal.SIGUSR1)
        file = growth_file(self._gauges)
        with trio.move_on_after(_GROWTH_S):
            while not file.exists():  # noqa: ASYNC110 - another process writes it
                await trio.sleep(0.1)
            return file.read_text("utf-8")
        return f"nothing was told within {_GROWTH_S:g} s"


def _line(told: Told, sample: Sample, seconds: float) -> str:
    lag = "?" if sample.lag_p99_ms is None else f"{sample.lag_p99_ms:.0f}"
    return (
        f"{told.at_s:6,.0f} of {seconds:,.0f} s: {told.ended:,} tasks, {sample.tasks_per_s:,.0f}/s,"
        f" {sample.rss_mib:.1f} MiB, {sample.own_descriptors} + {told.connections} descriptors,"
        f" WAL {sample.wal_mib:.1f} MiB, lag p99 {lag} ms, {told.open} open,"
        f" {told.duplicates} duplicates, refused: {told.refused or 'none'}"
    )


@asynccontextmanager
async def _open_server(
    settings: Settings, retention_s: float
) -> AsyncIterator[tuple[Running, Path]]:
    kept, often = f"{retention_s:g}", f"{retention_s / 10:g}"
    trace = "1" if settings.trace else "0"
    with tempfile.TemporaryDirectory(prefix="ringback-soak-") as directory:
        place = Path(directory)
        gauges = ["-m", "tests.soak.serve", str(place / _GAUGES), f"{settings.leak_kib_s:g}", trace]
        serve = ["serve", "--port", "0", "--database", f"sqlite:///{place / _DATABASE}"]
        keep = ["--event-retention", kept, "--archive-retention", kept, "--idempotency", kept]
        arguments = [*gauges, *serve, *keep, "--prune-interval", often]
        async with open_process("server", arguments, place) as server:
            yield server, place


async def _drive(plan: Plan, place: Path, note: Callable[[Told], None]) -> Told:
    """Let the load do what the plan says; what it told last."""
    limit_s = plan.seconds + 3 * plan.patience_s + _SPARE_S
    err, held, last = place / "load.err", b"", None
    with err.open("wb") as stderr:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "tests.soak.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=ROOT,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with trio.fail_after(limit_s):
            await process.stdin.send_all(json.dumps(attrs.asdict(plan)).encode())
            await process.stdin.aclose()
            async for data in process.stdout:
                *lines, held = (held + data).split(b"\n")
                for line in lines:
                    last = Told(**json.loads(line))
                    note(last)
    except trio.TooSlowError:
        raise Broken(f"the load was not done within {limit_s:,.0f} s") from None
    finally:
        with trio.CancelScope(shield=True):  # it ends by itself, or by this
            process.kill()
            await process.wait()
    if last is None or not last.final:
        raise Broken(f"the load failed:\n{err.read_text('utf-8', 'replace')[-2000:]}")
    return last
