"""What must hold at every moment, checked after each commit, at each call, and at each answer a client
gets. Knows the README's promises and the tables, and nothing of the code that keeps them.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import attrs

from engine.config import EngineConfig
from engine.core.suspects import PRIME_AFTER, SUSPECT_AFTER
from engine.core.task import Event, Task, TaskId

from .goals import Goals

MAY_BECOME: Final[Mapping[str | None, frozenset[str]]] = MappingProxyType(
    {
        None: frozenset({"Queued"}),
        "Queued": frozenset({"Pending", "Cancelled", "Failed"}),
        "Pending": frozenset({"Processing", "Queued", "Cancelled"}),
        "Processing": frozenset({"Completed", "Retrying", "Failed", "Cancelled"}),
        "Retrying": frozenset({"Processing", "Cancelled", "Failed"}),
        "Completed": frozenset(),
        "Failed": frozenset({"Retrying"}),
        "Cancelled": frozenset(),
    }
)
"""The diagram in the README, copied by hand: it must not come from the code that is checked."""

ENDED: Final = frozenset({"Completed", "Failed", "Cancelled"})
FINAL: Final = frozenset({"Completed", "Cancelled"})
REFUSALS: Final = frozenset({400, 405, 406, 410, 411, 413, 414, 415, 422, 501, 505})
UNCOUNTED: Final = frozenset({"shortage", "interrupted", "lost", "cancelled"})

_COLUMNS: Final = (
    "id, status, version, attempt, failures, recoveries, owner, wait, lane, due_at, expires_at,"
    " completed_at, partition_key, name"
)
_REASONS: Final = {
    "the client's lease ended": "a client's lease ends",
    "the executor's lease ended": "an attempt's lease ends",
}
_SECOND: Final = 1_000_000  # the tables count microseconds


class Breach(Exception):
    """Something was seen that must never be."""


@attrs.frozen
class Row:
    """A task as the tables have it."""

    id: TaskId
    status: str
    version: int
    attempt: int
    failures: int
    recoveries: int
    owner: str | None
    wait: str | None
    lane: str | None
    due_at: int
    expires_at: int | None
    completed_at: int | None
    key: str | None
    name: str


@attrs.frozen
class Try:
    """A line of the attempt log."""

    number: int
    counted: bool
    status_code: int | None
    error_class: str | None
    started_at: int = attrs.field(repr=False)

    @property
    def failed(self) -> bool:
        """Whether it used up some of the retry budget."""
        return self.counted and not self.succeeded

    @property
    def succeeded(self) -> bool:
        """Whether the callee accepted it."""
        return self.error_class is None


@attrs.define
class Life:
    """What has been seen of one task."""

    born: int  # the seq of its creation
    row: Row
    status: str | None = None
    attempt: int = 0
    tries: tuple[Try, ...] = ()
    claimed_at: dict[int, int] = attrs.field(factory=dict)  # by attempt
    round_after: int = 0  # attempts up to this one do not count any more: it was retried
    rounds: int = 0
    cancelled: bool = False  # and a client has been told so
    sent: Counter[int] = attrs.field(factory=Counter)  # by attempt
    executed: Counter[int] = attrs.field(factory=Counter)
    spoilt: Counter[int] = attrs.field(factory=Counter)
    praised: set[int] = attrs.field(factory=set)
    not_before: tuple[int, int] = (0, 0)  # of which attempt the callee asked for what moment
    gone: bool = False  # removed for its age


@attrs.define
class Settings:
    """What the books need to know of the run: how the engine is set, and what time it is."""

    config: EngineConfig
    now_us: Callable[[], int]  # by the wall clock
    latest_us: Callable[[], int]  # that the wall clock has ever shown
    steps: Callable[[], int]  # how often that was set
    max_attempts: Callable[[str], int]  # of a task, by its name
    deadline: Callable[[str], bool]  # whether it has one


class Books:
    """Everything that is durable, kept beside the database and compared with it."""

    def __init__(self, settings: Settings, goals: Goals, breach: Callable[[str], None]) -> None:
        self._settings = settings
        self._goals = goals
        self._breach = breach
        self.lives: dict[TaskId, Life] = {}
        self.events: list[tuple[TaskId, str | None, str, int]] = []  # seq is the index plus one
        self.pruned = 0  # events up to here are gone
        self._delivered: set[tuple[TaskId, int]] = set()
        self._keys: dict[str, list[TaskId]] = {}
        self._names: dict[str, TaskId] = {}  # clients give each task another
        self.accepted: set[TaskId] = set()

    def __repr__(self) -> str:
        return f"<Books of {len(self.lives)} tasks, {len(self.events)} events>"

    # -- after each commit -------------------------------------------------------------------

    def committed(self, db: sqlite3.Connection) -> list[tuple[TaskId, str | None, str, int]]:
        """A transaction has taken effect; the events it wrote. Raises ``Breach``."""
        before = len(self.events)
        moved = self._read_events(db)
        rows = self._read_rows(db)
        for task_id in moved:
            if task_id not in rows:
                raise Breach(f"task {task_id} has an event and no row")
        if len(rows) < len(self.lives):
            self._check_removed(rows)
        counts: Counter[str] = Counter()
        for row in rows.values():
            counts[row.status] += 1
            life = self.lives[row.id]
            if row != life.row:
                self._check_change(life, row, moved.get(row.id, 0))
                life.row = row
            if row.id in moved:
                self._check_row(row)
                self._check_tries(db, life)
        for task_id, frm, to, attempt in self.events[before:]:
            self._check_ends(self.lives[task_id], frm, to, attempt)
        self._check_owners(rows.values())
        kept = dict(_ask(db, "SELECT status, n FROM status_count WHERE n != 0"))
        if kept != dict(counts):
            raise Breach(f"the counters say {kept}, the tables {dict(counts)}")
        return self.events[before:]

    def _read_events(self, db: sqlite3.Connection) -> Counter[TaskId]:
        """The events that have come, each checked against the diagram; how many of each task."""
        moved: Counter[TaskId] = Counter()
        found = _ask(
            db,
            "SELECT seq, task_id, from_status, to_status, attempt, at, name, reason FROM event"
            " WHERE seq > ? ORDER BY seq",
            (len(self.events),),
        )
        for seq, raw_id, frm, to, attempt, at, name, reason in found:
            task_id = _id(raw_id)
            if seq != len(self.events) + 1:
                raise Breach(f"event {seq} follows event {len(self.events)}")
            self.events.append((task_id, frm, to, attempt))
            moved[task_id] += 1
            life = self.lives.get(task_id)
            if life is None:
                life = self.lives[task_id] = Life(seq, _unborn(task_id, name))
            self._check_event(life, frm, to, attempt, at)
            if reason in _REASONS:
                self._goals.reach(_REASONS[reason])
        if len(moved) > 1:
            self._goals.reach("a commit carries several tasks")
        kept = _ask(db, "SELECT min(seq) FROM event")[0][0]
        self.pruned = len(self.events) if kept is None else kept - 1
        counter = _ask(db, "SELECT value FROM counter WHERE name = 'event'")
        if counter and counter[0][0] != len(self.events):
            raise Breach(f"the counter of events is {counter[0][0]}, not {len(self.events)}")
        return moved

    def _check_event(self, life: Life, frm: str | None, to: str, attempt: int, at: int) -> None:
        task_id = life.row.id
        if frm != life.status:
            raise Breach(f"task {task_id} was {life.status}, an event says {frm} to {to}")
        if to not in MAY_BECOME[frm]:
            raise Breach(f"task {task_id} went from {frm} to {to}")
        begins = to == "Processing"
        if attempt != life.attempt + begins:
            raise Breach(
                f"task {task_id}: {frm} to {to} with attempt {attempt} after {life.attempt}"
            )
        if begins and life.row.due_at > at and not self._settings.steps():
            raise Breach(f"attempt {attempt} of task {task_id} began before it was due")
        if begins:
            life.claimed_at[attempt] = at
        if frm is not None:
            self._goals.reach(f"{frm} to {to}")
        if frm == "Failed":
            life.round_after, life.rounds = attempt, life.rounds + 1
            life.not_before = (0, 0)
        life.status, life.attempt = to, attempt

    def _read_rows(self, db: sqlite3.Connection) -> dict[TaskId, Row]:
        rows: dict[TaskId, Row] = {}
        for table in ("task", "archive"):
            for values in _ask(db, f"SELECT {_COLUMNS} FROM {table}"):
                row = Row(_id(values[0]), *values[1:])
                if row.id in rows:
                    raise Breach(f"task {row.id} is kept twice")
                if (row.status in FINAL) != (table == "archive"):
                    raise Breach(f"task {row.id} is {row.status} and lies in {table}")
                life = self.lives.get(row.id)
                if life is None or life.gone:
                    raise Breach(f"task {row.id} is there and was never created")
                if row.status != life.status or row.attempt != life.attempt:
                    raise Breach(
                        f"task {row.id} is {row.status} in attempt {row.attempt}; its events say"
                        f" {life.status}, {life.attempt}"
                    )
                rows[row.id] = row
        return rows

    def _check_owners(self, rows: Iterable[Row]) -> None:
        """What a dead server left running is given back before the next one runs anything."""
        running = {row.owner: row.id for row in rows if row.status == "Processing"}
        if len(running) > 1:
            raise Breach(f"tasks run for another server as well: {sorted(running.values())}")

    def _check_removed(self, rows: Mapping[TaskId, Row]) -> None:
        # The clock may have been set back since it was decided to remove one.
        config, now_us = self._settings.config, self._settings.latest_us()
        for life in self.lives.values():
            if life.row.id in rows or life.gone:
                continue
            ended = life.row.completed_at
            if life.status not in ENDED or ended is None:
                raise Breach(f"task {life.row.id} is lost; it was {life.status}")
            if now_us - ended < config.archive_retention_s * _SECOND:
                raise Breach(f"task {life.row.id} was removed before its time")
            life.gone = True
            self._goals.reach("old records are removed")

    def _check_change(self, life: Life, row: Row, events: int) -> None:
        before = life.row
        grown = row.version - before.version
        if self._names.setdefault(row.name, row.id) != row.id:
            raise Breach(f"{row.name} was created twice")
        if not before.version and row.key is not None:
            self._keys.setdefault(row.key, []).append(row.id)
        if not before.version and row.status == "Processing":
            if row.due_at > life.claimed_at[row.attempt]:
                raise Breach(f"task {row.id} began before it was due")
            self._goals.reach("a task is claimed in the commit that accepts it")
        if before.version and not grown:
            promoted = (before.wait, row.wait) == ("scheduled", "ready")
            if not promoted or attrs.evolve(row, wait=before.wait) != before:
                raise Breach(f"task {row.id} changed without a new version: {before} to {row}")
        if grown < events or grown < 0:
            raise Breach(
                f"task {row.id}: version {before.version} to {row.version}, {events} events"
            )
        if before.version and before.status in FINAL:
            raise Breach(f"task {row.id} changed after it had ended: {before} to {row}")
        if row.wait == "blocked":
            self._goals.reach("a task waits for its key")
            if life.rounds:
                self._goals.reach("a retried task waits behind its key")

    def _check_row(self, row: Row) -> None:
        """What each status needs."""
        waits = row.status in ("Queued", "Retrying") or (
            row.status == "Pending" and row.lane == "run"
        )
        if waits != (row.lane is not None and row.wait is not None):
            raise Breach(f"{row} waits for nobody, or for nothing")
        if row.status == "Processing" and (row.owner is None or row.expires_at is None):
            raise Breach(f"{row} runs without a lease")
        if row.status == "Pending" and row.lane is None and row.expires_at is None:
            raise Breach(f"{row} is leased for ever")
        if row.status in ENDED and row.completed_at is None:
            raise Breach(f"{row} has ended at no time")
        if row.status != "Processing" and row.status != "Pending" and row.owner is not None:
            raise Breach(f"{row} is owned by {row.owner}")

    def _check_tries(self, db: sqlite3.Connection, life: Life) -> None:
        """The attempt log: complete, never rewritten, and the budget kept by it."""
        row = life.row
        found = _ask(
            db,
            "SELECT number, counted, result, started_at FROM attempt WHERE task_id = ?"
            " ORDER BY number",
            (row.id.replace("-", ""),),
        )
        tries = tuple(_try(*values) for values in found)
        running = row.status == "Processing"
        numbers = [one.number for one in tries]
        if numbers != list(range(1, row.attempt + (not running))):
            raise Breach(
                f"task {row.id}, {row.status} in attempt {row.attempt}, has logged {numbers}"
            )
        if tries[: len(life.tries)] != life.tries:
            raise Breach(f"the attempt log of task {row.id} was rewritten")
        for one in tries[len(life.tries) :]:
            if one.counted == (one.error_class in UNCOUNTED):
                raise Breach(f"task {row.id}: {one} was counted wrongly")
            if one.error_class == "lost":
                self._goals.reach("an attempt is lost with its server")
            claimed = life.claimed_at[one.number]
            if one.started_at < claimed and not self._settings.steps():
                raise Breach(f"task {row.id}: {one} has begun before it was claimed")
        life.tries = tries
        failures = sum(one.failed for one in tries if one.number > life.round_after)
        if failures != row.failures:
            raise Breach(f"task {row.id} has failed {failures} times and is charged {row.failures}")
        if failures > self._settings.max_attempts(row.name):
            raise Breach(f"task {row.id} was tried more often than it allows")

    def _check_ends(self, life: Life, frm: str | None, to: str, attempt: int) -> None:
        """What an event needs beside it. The log has been read meanwhile."""
        task_id = life.row.id
        if to == "Processing":
            self._check_turn(life)
            if life.row.recoveries >= SUSPECT_AFTER:
                prime = life.row.recoveries >= PRIME_AFTER
                self._goals.reach("a prime suspect runs" if prime else "a suspect runs")
        if frm != "Processing":
            return
        last = life.tries[attempt - 1]
        if to == "Completed":
            if not last.succeeded:
                raise Breach(f"task {task_id} is Completed by {last}")
            if attempt not in life.praised:
                raise Breach(
                    f"task {task_id} is Completed, but no callee accepted attempt {attempt}"
                )
            if life.rounds:
                self._goals.reach("a retried task completes")
        elif last.succeeded:
            raise Breach(f"task {task_id} is {to} after {last}")
        elif to == "Cancelled":
            self._goals.reach("a cancel cuts a callback off")
        elif to == "Retrying":
            if life.row.failures >= self._settings.max_attempts(life.row.name) and (
                life.row.attempt == attempt and life.row.status == "Retrying"
            ):
                raise Breach(f"task {task_id} is tried again, its budget is used up")
        elif life.row.attempt == attempt and life.row.status == "Failed":  # not retried since
            self._check_failure(life, last)

    def _check_failure(self, life: Life, last: Try) -> None:
        """Nothing is given up without a reason."""
        config, row = self._settings.config, life.row
        tries = [one for one in life.tries if one.number > life.round_after]
        heard = itertools.takewhile(lambda one: not one.counted, reversed(tries))
        if sum(one.error_class == "lost" for one in heard) >= config.recoveries_max:
            self._goals.reach("a task is parked because its attempts were lost")
        elif (
            not row.failures >= self._settings.max_attempts(row.name)
            and last.status_code not in REFUSALS
            and last.status_code != 503  # that may say so in a header
            and not self._settings.deadline(row.name)
        ):
            raise Breach(f"task {row.id} has Failed for no reason: {life.tries}")

    def _check_turn(self, life: Life) -> None:
        """Tasks of one key run one at a time, in the order of their creation."""
        key = life.row.key
        for other_id in self._keys.get(key, ()) if key is not None else ():
            other = self.lives[other_id]
            if other is life or other.gone:
                continue
            if other.status == "Processing" and life.status == "Processing":
                raise Breach(f"{life.row.id} and {other_id} of one key run at once")
            # Blocked tasks go by their ids, which a clock set back puts out of order at a restart.
            out_of_order = other_id > life.row.id and self._settings.steps()
            waits = other.status not in ENDED and not other.rounds
            if other.born < life.born and waits and not out_of_order:
                raise Breach(f"{life.row.id} runs before {other_id} of its key")

    # -- at each call ------------------------------------------------------------------------

    def sent(self, task_id: TaskId, attempt: int) -> None:
        """A request has left the engine. Raises ``Breach``."""
        life = self.lives.get(task_id)
        if life is None:
            raise Breach(f"task {task_id} is called and not stored")
        if attempt > life.attempt:
            raise Breach(f"attempt {attempt} of task {task_id} is called before it is stored")
        if attempt < life.attempt:
            raise Breach(f"attempt {attempt} of task {task_id} is called in attempt {life.attempt}")
        if life.status not in ("Processing", "Cancelled"):
            raise Breach(f"task {task_id} is called and {life.status}")
        if life.cancelled:
            raise Breach(f"task {task_id} is called after a client was told that it is cancelled")
        life.sent[attempt] += 1
        if life.sent[attempt] > 1 + life.spoilt[attempt]:
            raise Breach(f"attempt {attempt} of task {task_id} is made twice")
        of, moment_us = life.not_before
        heard = 0 < of <= len(life.tries) and life.tries[of - 1].status_code == 429
        if heard and attempt == of + 1:
            if self._settings.now_us() < moment_us:
                raise Breach(f"task {task_id} is called before its callee wants it")
            self._goals.reach("a Retry-After is kept")

    def executed(self, task_id: TaskId, attempt: int) -> None:
        """A callee has done what was asked. Raises ``Breach``."""
        life = self.lives[task_id]
        life.executed[attempt] += 1
        if life.executed.total() > 1:
            self._goals.reach("a callback is executed twice")
        if life.executed.total() > life.attempt + life.spoilt.total():
            raise Breach(f"task {task_id} was executed more often than it was interrupted")
        if attempt <= len(life.tries) and life.tries[attempt - 1].error_class == "lost":
            self._goals.reach("a lost attempt's callback is executed all the same")

    def asked_to_wait(self, task_id: TaskId, attempt: int, seconds: float) -> None:
        """The callee wants a pause. The log of attempts tells whether the engine has heard it."""
        life = self.lives[task_id]
        asked_us = min(seconds, self._settings.config.retry_after_max_s) * _SECOND
        life.not_before = (attempt, self._settings.now_us() + int(asked_us))

    def forget_pauses(self) -> None:
        """The wall clock has been set, or somebody asked for another round: pauses are off."""
        for life in self.lives.values():
            life.not_before = (0, 0)

    # -- at each answer to a client ----------------------------------------------------------

    def was_accepted(self, task_ids: Sequence[TaskId]) -> None:
        """A client has been told that these exist. Raises ``Breach``."""
        for task_id in task_ids:
            if task_id not in self.lives:
                raise Breach(f"task {task_id} was accepted and is not stored")
            self.accepted.add(task_id)

    def was_cancelled(self, task_id: TaskId) -> None:
        """A client has been told that the task is cancelled. Raises ``Breach``."""
        life = self.lives[task_id]
        if life.status != "Cancelled":
            raise Breach(f"task {task_id} is called Cancelled and is {life.status}")
        life.cancelled = True

    def was_leased(self, task: Task) -> None:
        """A client has got this task to drive. Raises ``Breach``."""
        if (task.id, task.version) in self._delivered:
            raise Breach(f"task {task.id} was given to two clients")
        self._delivered.add((task.id, task.version))

    def was_shown(self, task: Task, version_at_least: int) -> None:
        """A client has been shown this task. Raises ``Breach``."""
        life = self.lives.get(task.id)
        if life is None:
            raise Breach(f"task {task.id} is shown and not stored")
        if not version_at_least <= task.version <= life.row.version:
            raise Breach(
                f"task {task.id} is shown in version {task.version}; it had {version_at_least} when"
                f" asked and has {life.row.version}"
            )

    def was_streamed(self, event: Event, last_seq: int) -> None:
        """A watcher has heard of this event. Raises ``Breach``."""
        if event.seq != last_seq + 1:
            raise Breach(f"event {event.seq} was streamed after {last_seq}")
        if event.seq > len(self.events):
            raise Breach(f"event {event.seq} was streamed before it was durable")
        frm = None if event.from_status is None else event.from_status.value
        told = (event.task_id, frm, event.to_status.value, event.attempt)
        if told != self.events[event.seq - 1]:
            raise Breach(f"event {event.seq} was streamed as {told}")

    # -- at the end --------------------------------------------------------------------------

    def finish(self, db: sqlite3.Connection) -> None:
        """What is durable is what was seen, and it adds up. Raises ``Breach``."""
        known = len(self.events)
        self.committed(db)
        if len(self.events) != known:
            raise Breach(f"{len(self.events) - known} events were committed unseen")
        if _ask(db, "PRAGMA integrity_check") != [("ok",)]:
            raise Breach("the database is damaged")
        for life in self.lives.values():
            if life.status == "Completed" and not life.executed.total():
                raise Breach(f"task {life.row.id} is Completed and was never called")
            if life.row.id not in self.accepted:
                self._goals.reach("a client never hears that its task was accepted")

    def open_tasks(self) -> list[Life]:
        """Those that have not ended."""
        return [life for life in self.lives.values() if life.status not in ENDED]

    def statuses(self) -> list[str]:
        """Those that tasks have now, each once."""
        return sorted({life.status for life in self.lives.values() if life.status is not None})


def _ask(db: sqlite3.Connection, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
    """Past the faults of a connection that has some."""
    return sqlite3.Connection.cursor(db, sqlite3.Cursor).execute(sql, values).fetchall()


def _id(raw: str) -> TaskId:
    """SQLite keeps ids without dashes."""
    return f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}" if len(raw) == 32 else raw


def _unborn(task_id: TaskId, name: str) -> Row:
    return Row(task_id, "", 0, 0, 0, 0, None, None, None, 0, None, None, None, name)


def _try(number: int, counted: int, result: str, started_at: int) -> Try:
    said = json.loads(result)
    code, error_class = said.get("status_code"), said.get("error_class")
    return Try(number, bool(counted), code, error_class, started_at)
