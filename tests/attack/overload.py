"""Three times what the server can do, for a minute, whatever it makes of it. What it accepts, it
accepts soon and does; what is too much it refuses at once, and says when to come back."""

from __future__ import annotations

import json
import resource
import sys
from functools import partial
from time import perf_counter
from typing import Any, Final, NoReturn

import attrs
import click
import trio

from benchmarks.drive import drive
from benchmarks.driver.plan import Plan
from benchmarks.load import Connection, CutOffError, request
from benchmarks.stack import ROOT
from tests.attack.overload_driver import Loaded
from tests.attack.target import Target, open_target, until
from tests.attack.verdict import RECORD, Came, claims, conclude, progress

BAR: Final = "overload"
TIMES: Final = 3
SECONDS: Final = 60.0
OFFERED_MIN: Final = 2.7  # times what it can do, if the load is to be the one of the bar
ACCEPTED_MIN: Final = 0.5  # of what it can do: to refuse nearly all is no way to bear it
LENGTH_SPARE: Final = 0.1
P95_MAX_S: Final = 0.5
GROWTH_MAX_MIB: Final = 64.0
RECOVERED_MAX_S: Final = 10.0
CONNECTIONS: Final = 4_000
PROBES_A_SECOND: Final = 20
REFUSALS: Final = {"status 429", "status 503"}
DONE_S: Final = 300.0
_WAITING: Final = ("Queued", "Pending", "Processing", "Retrying")


@attrs.define
class Probed:
    """What one client met that asked all the time: when it asked, how long it took, and how it was
    answered."""

    answers: list[tuple[float, float, int]] = attrs.field(factory=list)
    malformed: list[str] = attrs.field(factory=list)  # refusals that do not say what to do

    def accepted(self) -> int:
        return sum(status == 201 for _, _, status in self.answers)

    def refused(self) -> int:
        return sum(status in (429, 503) for _, _, status in self.answers)

    def unwell_until(self) -> float:
        """When it was last refused, or had to wait too long."""
        return max(
            (at for at, took, status in self.answers if status != 201 or took > P95_MAX_S),
            default=0.0,
        )


@attrs.frozen(kw_only=True)
class Overloaded:
    """What came of it all."""

    capacity: float
    seconds: float  # for which it was to be overloaded
    loaded: Loaded
    probed: Probed
    grown_mib: float
    left: int  # tasks that have not ended
    completed: int
    expected: int

    @property
    def length_s(self) -> float:
        return self.loaded.ended - self.loaded.began

    @property
    def offered(self) -> int:
        loaded = self.loaded
        return loaded.accepted + sum(loaded.refused.values()) + loaded.unanswered

    @property
    def recovered_s(self) -> float:
        return max(0.0, self.probed.unwell_until() - self.loaded.ended)

    def broken(self) -> list[str]:
        """What no server may do, however slow its machine."""
        loaded, probed = self.loaded, self.probed
        found = {
            f"{loaded.lost} accepted tasks not called": loaded.lost,
            f"{loaded.unanswered} creates unanswered": loaded.unanswered,
            f"{loaded.duplicates} called twice": loaded.duplicates,
            f"{loaded.stalled}": loaded.stalled,
            f"{self.left} tasks not ended": self.left,
            f"{self.completed} Completed instead of {self.expected}": self.completed
            - self.expected,
            f"refused with {loaded.refused}": loaded.refused.keys() - REFUSALS,
            f"refusals without Retry-After: {probed.malformed[:3]}": probed.malformed,
            "nothing was accepted": not loaded.accepted,
            "nothing was refused": not (loaded.refused and probed.refused()),
        }
        return [what for what, is_so in found.items() if is_so]

    def slow(self) -> list[str]:
        """What misses a figure of the bar, or was no such load."""
        can = self.capacity * self.length_s
        found = {
            "length": abs(self.length_s - self.seconds) > LENGTH_SPARE * self.seconds,
            "too little offered": self.offered < OFFERED_MIN * can,
            "too little accepted": self.loaded.accepted < ACCEPTED_MIN * can,
            "p95": not self.loaded.accepted_p95_s < P95_MAX_S,
            "memory": self.grown_mib > GROWTH_MAX_MIB,
            "recovery": self.recovered_s > RECOVERED_MAX_S,
        }
        return [what for what, is_so in found.items() if is_so]


async def attack(seconds: float = SECONDS) -> Came:
    """Overload a server for so long."""
    done = await overload(seconds)
    loaded = done.loaded
    return Came(
        tried=f"{done.offered:,} creates in {done.length_s:.0f} s, {done.offered / done.length_s:,.0f}/s "
        f"where {done.capacity:,.0f}/s go",
        seen=f"{loaded.accepted:,} accepted, p95 {loaded.accepted_p95_s * 1000:.0f} ms, {loaded.lost} lost, all done; "
        f"{sum(loaded.refused.values()):,} refused with {', '.join(sorted(loaded.refused))}, "
        f"all {done.probed.refused():,} looked at with Retry-After; memory +{done.grown_mib:.0f} MiB; "
        f"well again after {done.recovered_s:.1f} s; the load was sent {loaded.behind_p95_s * 1000:.0f} ms late (p95)",
        misses=done.broken(),
        late=done.slow(),
    )


async def overload(seconds: float) -> Overloaded:
    """Find out what a server can do, ask for three times that, and wait for all to be done."""
    _make_room()
    # No idle connection is closed: a client that uses it at that moment would count as cut off.
    async with open_target("--dispatch", "auto", "--keep-alive", "600") as target:
        capacity = await _capacity(target)
        progress(f"{capacity:,.0f} tasks a second; now {TIMES * capacity:,.0f}, for {seconds:g} s")
        before = await target.stats()
        base_mib = target.rss_mib()
        probed = Probed()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_probe, target, probed)
            loaded = await _load(target, TIMES * capacity, seconds)
            progress(f"{loaded.accepted:,} accepted; waiting until the server is well again")
            last = perf_counter()
            await until(partial(_is_well, probed, last), RECOVERED_MAX_S * 3)
            nursery.cancel_scope.cancel(reason="it has been seen enough")
        grown = target.stack.server.usage().peak_rss_mib - base_mib
        expected = before["counts"].get("Completed", 0) + loaded.accepted + probed.accepted()
        await until(partial(_is_idle, target), DONE_S, every_s=0.5)
        counts = (await target.stats())["counts"]
        return Overloaded(
            capacity=capacity,
            seconds=seconds,
            loaded=loaded,
            probed=probed,
            grown_mib=grown,
            left=sum(counts.get(status, 0) for status in _WAITING),
            completed=counts.get("Completed", 0),
            expected=expected,
        )


async def _capacity(target: Target) -> float:
    """Tasks a second, all the way, with as many clients as keep it busy."""
    plan = Plan(url=target.url, tasks=4_000, warm=300, connections=100, ask=100)
    result = await drive(plan)
    if result.rate is None or result.refused or result.lost:
        raise target.lost(f"it cannot even do {plan.tasks} tasks in peace: {result}")
    return result.rate


async def _load(target: Target, rate: float, seconds: float) -> Loaded:
    plan = Plan(
        url=target.url,
        tasks=round(rate * seconds),
        rate=rate,
        connections=CONNECTIONS,
        limit_s=seconds + DONE_S,
        stall_s=30.0,
    )
    with trio.fail_after(plan.limit_s + 60):
        done = await trio.run_process(
            [sys.executable, "-m", "tests.attack.overload_driver"],
            stdin=json.dumps(attrs.asdict(plan)).encode(),
            capture_stdout=True,
            cwd=ROOT,
        )
    return Loaded(**json.loads(done.stdout))


async def _probe(target: Target, probed: Probed) -> None:
    """Create a task now and then, and look at the whole answer."""
    create = request("POST", "/api/v1/tasks", _task(target))
    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(_probe_once, target.url, create, probed)
            await trio.sleep(1 / PROBES_A_SECOND)


def _task(target: Target) -> dict[str, Any]:
    return {"name": "probe", "callbackUrl": target.callback("/good"), "dispatch": "auto"}


async def _probe_once(url: str, create: Any, probed: Probed) -> None:
    began = perf_counter()
    with Connection(url) as connection, trio.CancelScope(shield=True):  # it has a timeout
        try:
            answer = await connection.ask(create)
        except CutOffError as error:
            probed.answers.append((began, perf_counter() - began, 0))
            probed.malformed.append(f"cut off: {error}")
            return
    probed.answers.append((began, perf_counter() - began, answer.status))
    if answer.status != 201 and not _is_helpful(answer.status, answer.headers):
        probed.malformed.append(f"{answer.status} {dict(answer.headers)}")


def _is_helpful(status: int, headers: Any) -> bool:
    return (
        status in (429, 503)
        and headers.get("content-type") == "application/problem+json"
        and headers.get("retry-after", "").isdigit()
        and int(headers["retry-after"]) >= 1
    )


async def _is_well(probed: Probed, since: float) -> bool:
    await trio.lowlevel.checkpoint()
    return perf_counter() - max(since, probed.unwell_until()) > 2.0


async def _is_idle(target: Target) -> bool:
    counts = (await target.stats())["counts"]
    return not any(counts.get(status, 0) for status in _WAITING)


def _make_room() -> None:
    """For the driver's connections, which it inherits."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 1_000
    soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@click.command()
@click.option("--seconds", default=SECONDS, show_default=True, help="How long the overload lasts.")
@RECORD
def command(*, seconds: float, record: bool) -> NoReturn:
    """Ask for three times what the server can do."""
    claims(record=record, seconds=(seconds, SECONDS))
    command = f"overload --seconds {seconds:g}"
    conclude(BAR, command, partial(attack, seconds), record=record)
