"""``make bench-peers``: Ringback and its peers in turn on the same work, in one run.

Every repeat has a fresh stack, and the order of the stacks changes from repeat to repeat, so that a
busy moment of the machine hits all alike. A stack that cannot be measured is named with the reason;
the others go on.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final, Protocol

import attrs
import click
import trio

from benchmarks import interrupted
from benchmarks.comparison import Comparison, Failure, print_comparison
from benchmarks.drive import DriverError, drive
from benchmarks.driver.plan import Result
from benchmarks.peers import PEERS, NotInstallable
from benchmarks.report import write_result
from benchmarks.running import RunningStack
from benchmarks.stack import ROOT, StartError, open_ringback
from benchmarks.work import Workload, workloads

OURS: Final = "ringback"
_PROBE: Final = 500  # tasks that tell how fast a stack is about
_SLOW_S: Final = 25.0  # a run that would take longer gets fewer tasks:
_SHORT_S: Final = 8.0  # as many as take so long


class Entrant(Protocol):
    """A stack that can be compared."""

    @property
    def name(self) -> str: ...

    def facts(self) -> Mapping[str, str]:
        """``versions`` of what it runs, and ``durability`` in words. Raises NotInstallable."""

    def prepare(self, say: Callable[[str], None]) -> None:
        """Make it ready to be opened. Raises NotInstallable."""

    def open(self, directory: Path) -> AbstractAsyncContextManager[RunningStack]:
        """It, running, fresh. Raises StartError."""


@attrs.frozen
class Ringback:
    """Our own, with its settings as they are."""

    name: str = "Ringback"

    def facts(self) -> Mapping[str, str]:
        return {
            "versions": f"ringback {version('ringback')}",
            "durability": "synchronous=FULL",
        }

    def prepare(self, say: Callable[[str], None]) -> None:
        """It is installed already: this is it."""

    @asynccontextmanager
    async def open(self, directory: Path) -> AsyncIterator[RunningStack]:
        async with open_ringback(directory) as stack:
            yield stack


ENTRANTS: Final[Mapping[str, Entrant]] = {OURS: Ringback(), **PEERS}


@attrs.frozen(kw_only=True)
class Terms:
    """How it is compared."""

    repeats: int
    quick: bool
    directory: Path


class Contest:
    """All stacks on all work. Nothing that goes wrong in one of them ends it."""

    def __init__(
        self, terms: Terms, entrants: Mapping[str, Entrant], comparison: Comparison
    ) -> None:
        self._terms, self._entrants, self._comparison = terms, entrants, comparison

    def __repr__(self) -> str:
        return f"<Contest of {', '.join(self._left())}>"

    async def run(self, work: Sequence[Workload]) -> None:
        """Prepare every stack, then one workload after the other."""
        for name in self._entrants:
            await self._prepare(name)
        for number, each in enumerate(work, start=1):
            _say(f"[{number}/{len(work)}] {each.title}")
            await self._workload(each)

    async def _prepare(self, name: str) -> None:
        entrant = self._entrants[name]
        try:
            prepare = partial(entrant.prepare, partial(_say_of, entrant.name))
            await trio.to_thread.run_sync(prepare, abandon_on_cancel=True)
            self._comparison.facts[name] = {"name": entrant.name, **entrant.facts()}
        except (NotInstallable, OSError) as error:
            self._fail(name, str(error))

    async def _workload(self, work: Workload) -> None:
        tasks: dict[str, int] = {}
        for name in self._left():  # unmeasured, and so the warm-up of the machine, too
            probe = min(_PROBE, work.tasks)
            if result := await self._measure(name, work, probe):
                tasks[name] = affordable(work, result)
        for repeat in range(self._terms.repeats):
            for name in in_turn([name for name in self._left() if name in tasks], repeat):
                result = await self._measure(name, work, tasks[name])
                if result:
                    self._comparison.add(work, name, tasks[name], result)

    async def _measure(self, name: str, work: Workload, tasks: int) -> Result | None:
        """One run on a fresh stack."""
        entrant = self._entrants[name]
        ask = 500 if self._terms.quick else None
        result = None
        try:
            async with entrant.open(self._terms.directory) as stack:
                result = await drive(work.plan_for(stack, tasks, ask=ask))
                _say_of(entrant.name, self._comparison.line(work, result))
        except* Exception as group:  # noqa: BLE001 - whatever it is, it is this stack's
            self._fail(name, _reason(group))
        return result

    def _left(self) -> list[str]:
        return [name for name in self._entrants if name not in self._comparison.failed]

    def _fail(self, name: str, reason: str) -> None:
        title = self._entrants[name].name
        self._comparison.failed[name] = Failure(title, reason)
        _say_of(title, f"cannot be measured: {reason}")


def affordable(work: Workload, probe: Result) -> int:
    """As many tasks as planned, or, for a slow stack, what it does in a while: the rate of a
    closed loop does not depend on it. On a schedule, all get the same."""
    if work.plan.rate is not None or not probe.rate:
        return work.tasks
    if work.tasks / probe.rate <= _SLOW_S:
        return work.tasks
    return min(work.tasks, max(_PROBE, round(probe.rate * _SHORT_S / 100) * 100))


def in_turn(names: Sequence[str], repeat: int) -> list[str]:
    """The order of a repeat: each begins with another stack, and every other one goes backwards."""
    start = repeat % len(names) if names else 0
    order = [*names[start:], *names[:start]]
    return order[::-1] if repeat % 2 else order


def _reason(group: BaseExceptionGroup[BaseException]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    expected = isinstance(error, NotInstallable | StartError | DriverError)
    return str(error) if expected else f"{type(error).__name__}: {error}"


def _say_of(name: str, text: str) -> None:
    _say(f"  {name}: {text}")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def draw(path: Path, *, whole: bool) -> None:
    """The chart of a result, in a process of its own. Only that of a whole comparison goes where
    the README shows it, and its table into the README."""
    into = Path(__file__).parent if whole else path.parent
    commands = [["benchmarks.chart", str(path), "--into", str(into)]]
    if whole:
        commands.append(["benchmarks.in_readme", str(path)])
    for command in commands:
        subprocess.run([sys.executable, "-m", *command], check=False, cwd=ROOT)


@click.command()
@click.option("--quick", is_flag=True, help="Smaller numbers, one repeat.")
@click.option("--repeats", type=click.IntRange(min=1), help="Runs of each; 3 unless quick.")
@click.option("--tasks", type=click.IntRange(min=100), help="Of each run of a closed loop.")
@click.option("--only", multiple=True, type=click.Choice([w.name for w in workloads(quick=True)]))
@click.option("--stack", "stacks", multiple=True, type=click.Choice(list(ENTRANTS)))
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(tempfile.gettempdir()),
    show_default=True,
    help="Where the databases lie; a real disk, or its fsync costs nothing.",
)
def main(
    *,
    quick: bool,
    repeats: int | None,
    tasks: int | None,
    only: tuple[str, ...],
    stacks: tuple[str, ...],
    directory: Path,
) -> None:
    """Compare Ringback with its peers. Exit 1 if one of them could not be measured, or if anything
    of Ringback's did not end as it should."""
    terms = Terms(repeats=repeats or (1 if quick else 3), quick=quick, directory=directory)
    work = [each for each in workloads(quick=quick, tasks=tasks) if each.name in only or not only]
    comparison = Comparison(OURS)
    entrants = {name: it for name, it in ENTRANTS.items() if name in stacks or not stacks}
    interrupted.run(partial(Contest(terms, entrants, comparison).run, work))
    print_comparison(comparison)
    content = {"kind": "comparison", "settings": {"quick": quick, "repeats": terms.repeats}}
    path = write_result("compare-", directory, content | comparison.as_json())
    click.echo(f"written to {path}")
    draw(path, whole=not (quick or tasks or only or stacks or comparison.failed))
    sys.exit(1 if comparison.failed or not comparison.ours_clean else 0)


if __name__ == "__main__":
    main()
