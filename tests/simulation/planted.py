"""Bugs that are put into the product on purpose, to see that the simulator finds them.

    python -m tests.simulation.planted

runs seed after seed with each of them and says which seed found it, and what was seen. A simulator
that finds nothing proves nothing; this is what it is able to find.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import attrs
import click

from engine.actors.executor import InFlight
from engine.actors.queue import Queue
from engine.actors.repository import Applied, Repository
from engine.adapters.brokers.local import LocalBroker
from engine.adapters.storage import statements as say
from engine.adapters.storage.known import Known
from engine.adapters.storage.sql import SqlRecords
from engine.core import changes
from engine.core.batch import Batch, Records
from engine.core.changes import Changes
from engine.core.commands import Claim, Create, Created, Finish, Receipt
from engine.core.lifecycle import WAITING
from engine.core.moves import Moves
from engine.core.outcome import Verdict
from engine.core.retry import RetryIn
from engine.core.task import Event, Status, Task
from engine.errors import StoreUnavailable
from engine.runtime import _Announcer
from tests.bars import Seen, say as say_bar

from .faults import NONE, Faults
from .run import Outcome, simulate


@attrs.frozen
class Plant:
    """Where the bug is put: an attribute, and what ``make`` makes of it."""

    owner: Any
    name: str
    make: Callable[[Any], Any]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """The bug is there for the length of the block."""
        kept = vars(self.owner)[self.name]
        setattr(self.owner, self.name, self.make(kept))
        try:
            yield
        finally:
            setattr(self.owner, self.name, kept)


@attrs.frozen
class Bug:
    """One planted bug."""

    name: str
    breaks: str  # what of the promise
    plant: Plant
    within: int  # so many seeds, whichever comes first, and it must have been seen
    seen_as: tuple[str, ...]  # a part of what the simulator then says, one of these
    faults: Faults | None = None  # what must go wrong, where few seeds choose it; else the seed's


@attrs.frozen
class Found:
    """What came of one bug."""

    bug: Bug
    tried: int  # seeds
    outcome: Outcome | None  # of the seed that found it

    def __str__(self) -> str:
        if self.outcome is None:
            return f"NOT SEEN in {self.tried} seeds"
        held = "" if self.plausible else "SEEN AS SOMETHING ELSE: "
        return f"seed {self.outcome.seed}, of {self.bug.within}: {held}{self.outcome.failure}"

    @property
    def plausible(self) -> bool:
        """Whether it was found, and for what it does."""
        failure = self.outcome.failure if self.outcome is not None else None
        return failure is not None and any(part in failure for part in self.bug.seen_as)


def hunt(bug: Bug, start: int = 0) -> Found:
    """Try seeds until one fails, at most as many as the bug may take."""
    for tried in range(1, bug.within + 1):
        outcome = simulate(start + tried - 1, plant=bug.plant(), faults=bug.faults)
        gc.collect()  # the simulation does not, while it runs
        if outcome.failure is not None:
            return Found(bug, tried, outcome)
    return Found(bug, bug.within, None)


# -- the bugs ----------------------------------------------------------------------------------


def _answering_early(serve: Any) -> Any:
    async def early(self: Repository, requests: Sequence[Any]) -> None:
        for request in requests:
            if isinstance(request.command, Create):
                now = self._clock.now()
                receipts = tuple(Receipt(task_id, now) for task_id, _ in request.command.tasks)
                request.reply.answer(Created(receipts))
        await serve(self, requests)

    return early


def _announcing_early(apply: Any) -> Any:
    def early(
        self: Repository, requests: Sequence[Any], now: datetime, records: Records
    ) -> tuple[Applied, list[Any]]:
        applied, results = apply(self, requests, now, records)
        self._announce(applied)
        return applied, results

    return early


def _creating_again(commit: Any) -> Any:
    async def again(self: Repository, requests: Sequence[Any]) -> Any:
        try:
            return await commit(self, requests)
        except StoreUnavailable:
            for one in requests:
                if isinstance(one.command, Create):
                    await commit(self, [attrs.evolve(one, command=_with_other_ids(one.command))])
            raise

    return again


def _with_other_ids(create: Create) -> Create:
    other = tuple((f"{task_id[:-4]}{'f' * 4}", spec) for task_id, spec in create.tasks[:1])
    return attrs.evolve(create, tasks=other + create.tasks[1:])


def _without_attempt(finish: Any) -> Any:
    def unfenced(self: Changes, command: Finish) -> Task:
        attempt = self._batch.task(command.task_id).attempt
        result: Task = finish(self, attrs.evolve(command, attempt=attempt))
        return result

    return unfenced


def _charging_twice(put: Any) -> Any:
    def twice(self: Moves, task: Task, **fields: Any) -> Task:
        if fields.get("failures", 0) > task.failures:
            fields["failures"] += 1
        result: Task = put(self, task, **fields)
        return result

    return twice


def _charging_us(classify: Any) -> Any:
    def charged(answer: Any) -> Verdict:
        verdict: Verdict = classify(answer)
        return Verdict.RETRY if verdict is Verdict.UNCOUNTED else verdict

    return charged


def _leaving_out_one(running: Any) -> Any:
    def all_but_one(self: SqlRecords, but_not: str, limit: int) -> list[Task]:
        found: list[Task] = running(self, but_not, limit)
        return found[1:]

    return all_but_one


def _expiring_only(*statuses: Status) -> Callable[[Any], Any]:
    def make(expired: Any) -> Any:
        def some(self: SqlRecords, now: datetime, limit: int) -> list[Task]:
            return [task for task in expired(self, now, limit) if task.status in statuses]

        return some

    return make


def _with_gaps(log: Any) -> Any:
    def gap(self: SqlRecords, events: Sequence[Event], text_of: Any) -> int:
        if len(events) > 3:
            self._session.rows(say.next_seqs, {"more": 1})
            self._known.last_seq = None
        first: int = log(self, events, text_of)
        return first

    return gap


def _losing_the_archived(archive: Any) -> Any:
    def losing(self: SqlRecords, archived: Sequence[Any], text_of: Any) -> None:
        archive(self, archived, text_of)
        self._delete(say.delete_archived, [task.id for task, _ in archived[1:]])

    return losing


def _unblocking_for_success(unblock: Any) -> Any:
    def unblock_some(self: Moves, ended: Task) -> None:
        if ended.status is Status.COMPLETED:
            unblock(self, ended)

    return unblock_some


def _numbering_again(lost: Any) -> Any:
    def same_number(self: Changes, task: Task, why: str) -> Task:
        result: Task = self.put(lost(self, task, why), attempt=task.attempt - 1)
        return result

    return same_number


@attrs.frozen
class _Deaf:
    """A reply that does not pass on that the store has failed."""

    reply: Any

    @property
    def abandoned(self) -> bool:
        return bool(self.reply.abandoned)

    def answer(self, value: Any) -> None:
        self.reply.answer(value)

    def fail(self, error: Exception) -> None:
        if not isinstance(error, StoreUnavailable):
            self.reply.fail(error)


def _forgetting_askers(serve: Any) -> Any:
    async def forgetting(self: Repository, requests: Sequence[Any]) -> None:
        heard = [
            attrs.evolve(one, reply=_Deaf(one.reply)) if isinstance(one.command, Claim) else one
            for one in requests
        ]
        await serve(self, heard)

    return forgetting


def _dropping_hints(announce: Any) -> Any:
    def drop(self: LocalBroker, hints: Sequence[Any]) -> None:
        announce(self, hints[:1])

    return drop


def _forgetting_new_ones(call: Any) -> Any:
    def forget(self: _Announcer, applied: Applied) -> None:
        known = tuple(task for task in applied.tasks if task.version > 1)
        call(self, attrs.evolve(applied, tasks=known))

    return forget


def _nothing(*_: Any) -> Any:
    return lambda *_args, **_more: None


def _always(value: Any) -> Callable[[Any], Any]:
    return lambda _: lambda *_args, **_more: value


_UNKNOWN_COMMITS: Final = Faults({"store.io_after": 0.1, "net.broken": 0.5})

BUGS: Final = (
    Bug(
        "answer before commit",
        "a create is answered before it is stored",
        Plant(Repository, "_serve", _answering_early),
        5,
        ("accepted and is not stored",),
    ),
    Bug(
        "event before commit",
        "watchers hear of changes that may yet be undone",
        Plant(Repository, "_apply", _announcing_early),
        20,
        ("was streamed",),
    ),
    Bug(
        "gap in events",
        "a number is left out when many events are stored at once",
        Plant(SqlRecords, "_log", _with_gaps),
        10,
        ("follows event",),
    ),
    Bug(
        "no attempt fence",
        "the result of an old attempt is taken for that of a newer one",
        Plant(Changes, "_finish", _without_attempt),
        80,
        ("begun before it was claimed",),
        Faults({"store.io_after": 0.3, "net.broken": 0.5}),
    ),
    Bug(
        "attempt number used again",
        "the attempt after a lost one has its number",
        Plant(Changes, "_lost", _numbering_again),
        15,
        ("with attempt", "in attempt"),
    ),
    Bug(
        "failure charged twice",
        "a failed attempt uses up two of the retry budget",
        Plant(Moves, "put", _charging_twice),
        15,
        ("is charged",),
    ),
    Bug(
        "interruption charged",
        "our own fault uses up an attempt",
        Plant(changes, "classify", _charging_us),
        30,
        ("counted wrongly",),
    ),
    Bug(
        "never gives up",
        "attempts are repeated for ever, without a pause",
        Plant(changes, "decide", _always(RetryIn(0.0))),
        30,
        ("more often than it allows", "budget is used up"),
    ),
    Bug(
        "Retry-After ignored",
        "the callee's pause is not kept",
        Plant(changes, "retry_after_s", _always(None)),
        60,
        ("before its callee wants it",),
        Faults({"net.too_many": 0.3}),
    ),
    Bug(
        "lost wake-up",
        "a claim that failed with its transaction is not made up for",
        Plant(Queue, "lost_track", _nothing),
        40,
        ("do not end",),
    ),
    Bug(
        "hints dropped in silence",
        "of tasks that become ready together only the first is announced",
        Plant(LocalBroker, "announce", _dropping_hints),
        100,
        ("executors work", "do not end"),
    ),
    Bug(
        "new tasks left to chance",
        "one that nobody claimed while it was being stored is not announced when it is",
        Plant(_Announcer, "__call__", _forgetting_new_ones),
        60,
        ("do not end",),
    ),
    Bug(
        "leaked credit",
        "an executor whose claim meets a store that fails is never answered",
        Plant(Repository, "_serve", _forgetting_askers),
        40,
        ("executors work", "do not end"),
    ),
    Bug(
        "cancelled call goes on",
        "cancelling does not cut the call off",
        Plant(InFlight, "moved_on", _nothing),
        100,
        ("after a client was told that it is cancelled",),
        NONE,
    ),
    Bug(
        "key not kept",
        "an Idempotency-Key is forgotten",
        Plant(Batch, "answered", _nothing),
        20,
        ("a key ", "was created twice"),
    ),
    Bug(
        "two of one key at once",
        "nobody waits behind the task that holds a partition key",
        Plant(SqlRecords, "holder", _always(None)),
        10,
        ("of one key run at once", "of its key"),
    ),
    Bug(
        "next of the key not let go",
        "a task that fails or is cancelled goes on blocking its key",
        Plant(Moves, "_unblock_next", _unblocking_for_success),
        80,
        ("do not end", "of its key"),
    ),
    Bug(
        "recovery leaves one out",
        "at the start one task of the dead server stays Processing",
        Plant(SqlRecords, "running", _leaving_out_one),
        20,
        ("run for another server",),
    ),
    Bug(
        "client's lease never ends",
        "a task that a client took and forgot stays Pending",
        Plant(SqlRecords, "expired", _expiring_only(Status.PROCESSING, *WAITING)),
        60,
        ("do not end",),
    ),
    Bug(
        "cache kept after a failed commit",
        "what was written and undone is taken for true",
        Plant(Known, "clear", _nothing),
        40,
        ("do not end", "loop turns", "commits", "Conflict", "counters", "event"),
        Faults({"store.busy": 0.1, "store.io_before": 0.1, "net.broken": 0.3}),
    ),
    Bug(
        "unknown commit made again",
        "a create whose commit may have taken effect is repeated under another id",
        Plant(Repository, "_commit", _creating_again),
        40,
        ("was created twice",),
        _UNKNOWN_COMMITS,
    ),
    Bug(
        "statuses not counted",
        "the figures of /stats no longer agree with the tasks",
        Plant(SqlRecords, "_count", _nothing),
        5,
        ("the counters say",),
    ),
    Bug(
        "archive loses a row",
        "of tasks that end together only the first is archived",
        Plant(SqlRecords, "_archive", _losing_the_archived),
        10,
        ("has an event and no row", "is lost"),
    ),
)


@click.command()
@click.option("--start", default=0, show_default=True, help="the first seed for each bug")
@click.option("--record", is_flag=True, help="keep the result for the table of the bars")
def main(start: int, record: bool) -> None:
    """Find every planted bug. Exits with 1 if one is not found, or taken for something else."""
    found = []
    for number, bug in enumerate(BUGS, 1):
        click.echo(f"{number} of {len(BUGS)}: {bug.name}: {bug.breaks}", err=True)
        found.append(hunt(bug, start))
        click.echo(f"{bug.name}: {found[-1]}")
    slowest = max(found, key=lambda one: one.tried)
    right = sum(one.plausible for one in found)
    say_bar(
        Seen(
            bar="planted bugs",
            tried=f"{len(BUGS)} bugs, {sum(one.tried for one in found)} seeds from {start}",
            seen=f"{right} found, each within {slowest.tried} seeds ({slowest.bug.name})",
            held=right == len(BUGS),
            command=f"python -m tests.simulation.planted --start {start}",
        ),
        record=record,
    )
    sys.exit(right != len(BUGS))


if __name__ == "__main__":
    main()
