"""Where does the time go? The server's CPU for a task, by layer, under single creates end to end."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Final

import attrs

from benchmarks import profiled_serve, report, stacks
from benchmarks.load import Request, closed_loop
from benchmarks.profiled_serve import Totals
from benchmarks.report import Figure
from benchmarks.stack import Running, Stack, StartError, open_process
from benchmarks.tasks import Settings, create, wait_until_completed

QUESTION: Final = "layers"
CONNECTIONS: Final = 100
WARM_UP: Final = 500
ROUND: Final = 2_000


@attrs.frozen
class Cpu:
    """CPU seconds of a process by thread."""

    main: float
    others: float

    @property
    def whole(self) -> float:
        return self.main + self.others

    def __add__(self, other: Cpu) -> Cpu:
        return Cpu(self.main + other.main, self.others + other.others)

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(self.main - other.main, self.others - other.others)


NONE: Final = Cpu(0.0, 0.0)


@attrs.define
class Side:
    """One of the two servers, and what its rounds came to."""

    name: str
    stack: Stack
    tasks: int = 0
    seconds: float = 0.0
    cpu: Cpu = NONE
    completed: int = 0  # of this server, the warm-up included

    @property
    def each_us(self) -> float:
        return self.cpu.whole * 1e6 / self.tasks


@attrs.define
class Profile:
    """What was met while the profiled server's rounds were on."""

    samples: Counter[stacks.Stack] = attrs.field(factory=Counter)
    totals: Totals = attrs.field(factory=lambda: Totals(0.0, 0.0, 0.0, 0.0, 0, 0))


async def measure(settings: Settings) -> list[Figure]:
    rounds = 1 if settings.quick else 4
    with tempfile.TemporaryDirectory(prefix="ringback-layers-", dir=settings.directory) as name:
        place = Path(name)
        for side_name in ("plain", "profiled"):
            (place / side_name).mkdir()
        async with (
            open_side(place / "plain", []) as plain,
            open_side(
                place / "profiled", ["-m", "benchmarks.profiled_serve", str(place / "profiled")]
            ) as profiled,
        ):
            numbers = count()
            for side in (plain, profiled):
                await _round(side, WARM_UP, numbers, settings)
            _forget(plain, profiled)
            profile = Profile()
            for number in range(rounds):  # in turn, and the first of a pair is the second's second
                settings.say(f"{ROUND:,} tasks on either server, {number + 1} of {rounds}")
                for side in (plain, profiled) if number % 2 else (profiled, plain):
                    if side is plain:
                        await _round(side, ROUND, numbers, settings)
                    else:
                        await _profiled_round(side, place / "profiled", profile, numbers, settings)
    met = whole(profile, profiled.cpu)
    folded = write_folded(met)
    settings.say(f"stacks for flame graphs are in {folded}; to read them:")
    settings.say(f"python -m benchmarks.stacks {folded}")
    return figures(plain, profiled, profile, met)


@asynccontextmanager
async def open_side(place: Path, launcher: Sequence[str]) -> AsyncIterator[Side]:
    """A fresh server, begun in this way, and a receiver."""
    serve = ["serve", "--port", "0", "--database", f"sqlite:///{place}/bench.db"]
    how = [*(launcher or ["-m", "web"]), *serve]
    async with (
        open_process("receiver", ["-m", "web.receiver", "--port", "0"], place) as receiver,
        open_process("server", how, place) as server,
    ):
        yield Side(place.name, Stack(server, receiver))


def _forget(*sides: Side) -> None:
    """What was only to warm up."""
    for side in sides:
        side.tasks, side.seconds, side.cpu = 0, 0.0, NONE


async def _round(side: Side, tasks: int, numbers: Iterator[int], settings: Settings) -> None:
    requests = _requests(side.stack, tasks, numbers)
    before, began = thread_cpu(side.stack.server), time.perf_counter()
    load = await closed_loop(
        side.stack.server.url, requests, connections=CONNECTIONS, wanted=(201,)
    )
    side.completed += len(load.latencies)
    if load.unwanted or not await wait_until_completed(side.stack, side.completed, settings):
        raise StartError(f"the {side.name} server did not do all tasks: {dict(load.unwanted)}")
    side.cpu += thread_cpu(side.stack.server) - before
    side.seconds += time.perf_counter() - began
    side.tasks += len(load.latencies)


async def _profiled_round(
    side: Side, place: Path, profile: Profile, numbers: Iterator[int], settings: Settings
) -> None:
    written, before = place / profiled_serve.SAMPLES, profiled_serve.read_totals(place)
    begin = written.stat().st_size
    await _round(side, ROUND, numbers, settings)
    with written.open(encoding="utf-8") as file:
        file.seek(begin)
        profile.samples += stacks.unfold(file)
    profile.totals += profiled_serve.read_totals(place) - before


def _requests(stack: Stack, tasks: int, numbers: Iterator[int]) -> Iterator[Request]:
    good = stack.callback("/good")
    return iter([create(good, next(numbers), "auto") for _ in range(tasks)])


def thread_cpu(process: Running) -> Cpu:
    """The others' is what is not the main thread's: those that have ended count too."""
    schedstat = Path(f"/proc/{process.pid}/task/{process.pid}/schedstat").read_text()
    main = int(schedstat.split()[0]) / 1e9
    return Cpu(main, (process.usage().cpu_s or 0.0) - main)


def write_folded(samples: Mapping[stacks.Stack, int]) -> Path:
    """Beside the figures."""
    report.RESULTS.mkdir(parents=True, exist_ok=True)
    path = report.RESULTS / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-layers.folded"
    path.write_text(stacks.fold(samples), encoding="utf-8")
    return path


def whole(profile: Profile, cpu: Cpu) -> Counter[stacks.Stack]:
    """Microseconds: the main thread's by its samples, and those measured on the store's threads."""
    met, totals = Counter(profile.samples), profile.totals
    parts = {
        stacks.CORE: totals.core_s,
        stacks.SQLITE: totals.sqlite_s,
        stacks.GARBAGE: totals.garbage_s,
    }
    parts[stacks.STORE] = cpu.others - sum(parts.values())
    for layer, seconds in parts.items():
        met[stacks.THREADS, layer] = round(seconds * 1e6)
    return met


def figures(
    plain: Side, profiled: Side, profile: Profile, met: Mapping[stacks.Stack, int]
) -> list[Figure]:
    """Shares are the profiler's; what they are shares of is the CPU of the server without it."""
    total, layers = sum(met.values()), stacks.by_layer(met)
    found = [
        Figure(QUESTION, "server CPU a task", plain.each_us, "us", note=f"{plain.tasks:,} tasks"),
        Figure(QUESTION, "tasks/s", plain.tasks / plain.seconds, "/s", note="to all Completed"),
    ]
    for layer in stacks.ALL_LAYERS:
        share = layers[layer] / total
        found.append(Figure(QUESTION, layer, share * plain.each_us, "us", note="a task"))
        found.append(Figure(QUESTION, f"{layer}: share", 100 * share, "%"))
    totals, cpu = profile.totals, profiled.cpu
    sampled_s = sum(profile.samples.values()) / 1e6
    return [
        *found,
        Figure(
            QUESTION, "tasks a transaction", profiled.tasks / totals.transactions,
            note=f"{totals.transactions:,} transactions",
        ),
        Figure(
            QUESTION, "check: garbage collection by its clock",
            100 * totals.collector_s / cpu.whole, "%", note=f"{totals.collections:,} collections",
        ),
        Figure(QUESTION, "CPU of the store's threads", 100 * cpu.others / cpu.whole, "%"),
        Figure(
            QUESTION, "check: samples against the main thread's clock",
            100 * sampled_s / cpu.main, "%"
        ),
        Figure(
            QUESTION, "check: CPU a task with the profiler, more",
            100 * (profiled.each_us / plain.each_us - 1), "%",
        ),
    ]  # fmt: skip
