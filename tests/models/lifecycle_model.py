"""The life of tasks as the README tells it, over plain dictionaries.

Shares no rule with ``engine.core``, so that the two can disagree: its own table of what may follow
what, its own counting of versions and attempts, its own reading of a callback's answer. It speaks
the engine's words only where it is spoken to: commands, descriptions, answers.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, TypeAlias, assert_never

import attrs

from engine.config import EngineConfig
from engine.core.commands import (
    AnyCommand,
    Cancel,
    Claim,
    Create,
    Execute,
    Finish,
    Prune,
    Recover,
    Refill,
    Release,
    Retry,
    Sweep,
    Take,
    Update,
)
from engine.core.outcome import Answer
from engine.core.task import Dispatch, RetryPolicy, TaskSpec

Row: TypeAlias = dict[str, Any]
"""What is told of one task."""

MAY_BECOME = {
    "Queued": {"Pending", "Cancelled", "Failed"},
    "Pending": {"Processing", "Queued", "Cancelled"},
    "Processing": {"Completed", "Retrying", "Failed", "Cancelled"},
    "Retrying": {"Processing", "Cancelled", "Failed"},
    "Failed": {"Retrying"},
    "Completed": set[str](),
    "Cancelled": set[str](),
}
WAITING = ("Queued", "Retrying")
OVER = ("Completed", "Failed", "Cancelled")
FOR_GOOD = (400, 405, 406, 410, 411, 413, 414, 415, 422, 501, 505)
OUR_FAULT = {"interrupted": 0, "lost": 0, "cancelled": 0, "shortage": 1}  # seconds until again


class Refused(Exception):
    """A command that must change nothing. ``kind`` is the name of the engine's error."""

    def __init__(self, kind: str, task_id: str | None = None, status: str | None = None) -> None:
        self.told = (kind, task_id, status)
        super().__init__(*self.told)


@attrs.define
class Lifecycle:
    """Everything that is durable, and what commands make of it."""

    config: EngineConfig
    now: datetime
    rows: dict[str, Row] = attrs.field(factory=dict)
    events: list[tuple[str, str | None, str, int]] = attrs.field(factory=list)
    attempts: dict[str, list[tuple[int, bool, str | None]]] = attrs.field(factory=dict)
    answers: dict[str, tuple[str, datetime, tuple[str, ...]]] = attrs.field(factory=dict)

    def apply(self, command: AnyCommand) -> Any:
        """What the command answers; raises ``Refused``."""
        match command:
            case Create():
                return self._create(command)
            case Claim(task_id=task_id, owner=owner):
                return self._claim(self._row(task_id), owner)
            case Finish(task_id=task_id):
                return self._finish(self._row(task_id), command)
            case Take(task_id=task_id, lease_s=lease_s):
                return self._take(self._row(task_id), lease_s)
            case Execute(task_id=task_id):
                return self._execute(self._row(task_id))
            case Release(task_id=task_id):
                return self._requeue(self._row(task_id))
            case Cancel():
                return self._cancel(command)
            case Retry(task_id=task_id):
                return self._retry(self._row(task_id))
            case Update():
                return self._update(command)
            case Sweep():
                return self._sweep(command.limit, command.in_flight)
            case Recover(owner=owner, limit=limit):
                return self._recover(owner, limit)
            case Refill() | Prune():
                raise AssertionError("not part of this model")
            case _:
                assert_never(command)

    # -- what is asked of it -----------------------------------------------------------------

    def is_free(self, row: Row) -> bool:
        """Whether somebody may have the task now. Setting the clock back takes nothing back."""
        due = row["ready"] or row["due"] <= self.now
        return row["lane"] is not None and not row["blocked"] and due

    def holder(self, key: str | None) -> str | None:
        """The task before all others of a partition key."""
        for task_id, row in self.rows.items():
            alive = row["status"] not in OVER and not row["blocked"]
            if alive and key is not None and row["spec"].partition_key == key:
                return task_id
        return None

    def living(self) -> dict[str, Row]:
        """The tasks that have not ended."""
        return {i: row for i, row in self.rows.items() if row["status"] not in OVER}

    # -- by clients --------------------------------------------------------------------------

    def _create(self, command: Create) -> tuple[tuple[str, ...], bool]:
        ids = tuple(task_id for task_id, _ in command.tasks)
        if command.key is not None and command.key.hash in self.answers:
            fingerprint, at, accepted = self.answers[command.key.hash]
            if self.now - at <= timedelta(seconds=self.config.idempotency_s):
                if fingerprint != command.key.fingerprint:
                    raise Refused("IdempotencyConflict")
                return accepted, True
        waiting = [row for row in self.rows.values() if row["status"] in WAITING]
        if len(waiting) + len(ids) > self.config.queue_max:
            raise Refused("Overloaded")
        for task_id, spec in command.tasks:
            dispatch = spec.dispatch or Dispatch(self.config.dispatch)
            self._accept(task_id, attrs.evolve(spec, dispatch=dispatch))
        if command.key is not None:
            self.answers[command.key.hash] = (command.key.fingerprint, self.now, ids)
        return ids, False

    def _accept(self, task_id: str, spec: TaskSpec) -> None:
        asked = spec.run_at or self.now
        if spec.delay_s is not None:
            asked = self.now + timedelta(seconds=spec.delay_s)
        blocked = self.holder(spec.partition_key) is not None
        self.attempts[task_id] = []
        self.rows[task_id] = row = {
            "id": task_id, "spec": spec, "status": "Queued", "version": 1, "attempt": 0,
            "failures": 0, "recoveries": 0, "owner": None, "due": max(asked, self.now),
            "lane": home(spec), "blocked": blocked, "expires": spec.deadline,
            "created": self.now, "updated": self.now, "executed": None, "completed": None,
            "archived": None, "error": None,
        }  # fmt: skip
        self._place(row)
        self._event(row, None)

    def _take(self, row: Row, lease_s: float) -> Row:
        self._must(row, "Queued")
        if row["lane"] != "take" or not self.is_free(row):
            raise Refused("NotTakeable", row["id"])
        return self._become(
            row, "Pending", lane=None, expires=self.now + timedelta(seconds=lease_s)
        )

    def _execute(self, row: Row) -> Row:
        self._must(row, "Pending")
        if row["lane"] is not None:  # it was said before
            raise Refused("IllegalTransition", row["id"], "Pending")
        deadline = row["spec"].deadline
        return self._change(row, lane="run", due=self.now, expires=deadline, ready=True)

    def _requeue(self, row: Row) -> Row:
        self._must(row, "Pending")
        spec = row["spec"]
        return self._become(row, "Queued", lane=home(spec), expires=spec.deadline)

    def _cancel(self, command: Cancel) -> Row:
        row = self._row(command.task_id)
        if command.if_version not in (None, row["version"]):
            raise Refused("VersionMismatch", row["id"])
        running = row["status"] == "Processing"
        if row["status"] in OVER or (running and not command.in_flight):
            raise Refused("IllegalTransition", row["id"], row["status"])
        if running:
            self._logged(row, False, "cancelled")
        return self._become(row, "Cancelled", **({"error": "cancelled"} if running else {}))

    def _retry(self, row: Row) -> Row:
        self._must(row, "Failed")
        blocked = self.holder(row["spec"].partition_key) is not None
        return self._wait_again(row, self.now, failures=0, recoveries=0, blocked=blocked)

    def _update(self, command: Update) -> Row:
        row = self._row(command.task_id)
        if command.if_version not in (None, row["version"]):
            raise Refused("VersionMismatch", row["id"])
        self._must(row, "Queued", "Pending")
        spec, due = attrs.evolve(row["spec"], **command.changes), row["due"]
        if "run_at" in command.changes:
            spec = attrs.evolve(spec, delay_s=None)
            due = max(spec.run_at or self.now, self.now)
        ready = row["lane"] is not None and not row["blocked"] and due <= self.now
        return self._change(row, spec=spec, due=due, ready=ready)

    # -- by executors ------------------------------------------------------------------------

    def _claim(self, row: Row, owner: str) -> Row:
        if row["lane"] != "run" or not self.is_free(row):
            raise Refused("ClaimLost", row["id"])
        if row["status"] == "Queued":  # it walks the same way as one that a client takes
            self._become(row, "Pending")
        more = {"attempt": row["attempt"] + 1, "executed": self.now, "expires": self._lease(row)}
        return self._become(row, "Processing", lane=None, owner=owner, **more)

    def _lease(self, row: Row) -> datetime:
        return self.now + timedelta(seconds=row["spec"].timeout_s + self.config.lease_margin_s)

    def _finish(self, row: Row, command: Finish) -> Row:
        held = (row["status"], row["owner"], row["attempt"])
        if held != ("Processing", command.owner, command.attempt):
            raise Refused("ClaimLost", row["id"])
        verdict, error = judged(command.answer)
        counted = verdict != "our fault"
        self._logged(row, counted, error)
        row |= {"recoveries": 0 if counted else row["recoveries"], "error": error}
        if verdict == "success":
            return self._become(row, "Completed")
        row["failures"] += counted
        policy: RetryPolicy = row["spec"].retry_policy
        if verdict == "for good" or (counted and row["failures"] >= policy.max_attempts):
            return self._become(row, "Failed")
        if counted:
            pause_s = pause_after(row["failures"], policy, command.jitter)
            pause_s = max(pause_s, float(command.answer.headers.get("retry-after", 0)))
        else:
            pause_s = OUR_FAULT[error or ""]
        due = self.now + timedelta(seconds=pause_s)
        if row["spec"].deadline is not None and due >= row["spec"].deadline:
            return self._become(row, "Failed")
        return self._wait_again(row, due)

    # -- by the clock, and at the start ------------------------------------------------------

    def _sweep(self, limit: int, in_flight: Collection[str]) -> int:
        late = [r for r in self.rows.values() if r["expires"] and r["expires"] <= self.now]
        late.sort(key=lambda row: (row["expires"], row["id"]))
        for row in late[:limit]:
            match row["status"]:
                case "Pending" if row["lane"] is None:
                    self._requeue(row)
                case "Pending":  # it was to run, and its deadline came first
                    self._requeue(row)
                    self._become(row, "Failed")
                case "Processing" if row["id"] in in_flight:
                    self._change(row, expires=self._lease(row))
                case "Processing":
                    self._lost(row)
                case _:
                    self._become(row, "Failed")
        return len(late[:limit])

    def _recover(self, owner: str, limit: int) -> int:
        orphans = [
            row
            for row in self.rows.values()
            if row["status"] == "Processing" and row["owner"] != owner
        ]
        orphans.sort(key=lambda row: row["id"])
        for row in orphans[:limit]:
            self._lost(row)
        return len(orphans[:limit])

    def _lost(self, row: Row) -> None:
        self._logged(row, False, "lost")
        row |= {"recoveries": row["recoveries"] + 1, "error": "lost"}
        if row["recoveries"] >= self.config.recoveries_max:
            self._become(row, "Failed")
        else:
            self._wait_again(row, self.now)

    # -- the one way to change anything ------------------------------------------------------

    def _row(self, task_id: str) -> Row:
        if task_id not in self.rows:
            raise Refused("TaskNotFound", task_id)
        return self.rows[task_id]

    def _must(self, row: Row, *statuses: str) -> None:
        if row["status"] not in statuses:
            raise Refused("IllegalTransition", row["id"], row["status"])

    def _wait_again(self, row: Row, due: datetime, **more: Any) -> Row:
        more = {"due": due, "lane": "run", "expires": row["spec"].deadline, **more}
        return self._become(row, "Retrying", completed=None, **more)

    def _become(self, row: Row, status: str, **more: Any) -> Row:
        before, held = row["status"], not row["blocked"]
        assert status in MAY_BECOME[before], f"the model itself went from {before} to {status}"
        if status in OVER:
            more = {"lane": None, "blocked": False, "expires": None, "completed": self.now} | more
        if status in ("Completed", "Cancelled"):
            more["archived"] = self.now
        row["owner"] = None
        self._change(row, status=status, **more)
        self._place(row)
        self._event(row, before)
        if status in OVER and held:
            self._let_next_go(row["spec"].partition_key)
        return dict(row)

    def _let_next_go(self, key: str | None) -> None:
        behind = [r for r in self.rows.values() if r["blocked"] and r["spec"].partition_key == key]
        if key is not None and behind:
            follower = min(behind, key=lambda row: row["id"])
            self._change(follower, blocked=False, ready=follower["due"] <= self.now)

    def _place(self, row: Row) -> None:
        waits = row["status"] in WAITING and not row["blocked"]
        row["ready"] = waits and row["due"] <= self.now

    def _change(self, row: Row, **more: Any) -> Row:
        row |= {"version": row["version"] + 1, "updated": self.now, **more}
        return dict(row)

    def _event(self, row: Row, before: str | None) -> None:
        self.events.append((row["id"], before, row["status"], row["attempt"]))

    def _logged(self, row: Row, counted: bool, error: str | None) -> None:
        self.attempts[row["id"]].append((row["attempt"], counted, error))


def home(spec: TaskSpec) -> str:
    """Whom a Queued task waits for."""
    return "take" if spec.dispatch is Dispatch.MANUAL else "run"


def judged(answer: Answer) -> tuple[str, str | None]:
    """What the README's table makes of an answer, and the class of error in the attempt log."""
    if answer.error_class is not None:
        error = str(answer.error_class)
        return ("our fault" if error in OUR_FAULT else "again"), error
    status = answer.status_code or 0
    if status // 100 == 2:
        return "success", None
    error = "redirect" if status // 100 == 3 else "http_status"
    no_retry = answer.headers.get("x-task-no-retry") == "true"
    return ("for good" if no_retry or status in FOR_GOOD else "again"), error


def pause_after(failures: int, policy: RetryPolicy, jitter: float) -> float:
    """The README's formula."""
    pause_s = policy.initial_interval_s * policy.multiplier ** (failures - 1)
    pause_s = min(pause_s, policy.max_interval_s)
    return pause_s * jitter if policy.jitter else pause_s
