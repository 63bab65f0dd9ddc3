"""Every command, in any order and grouping, against a plain model of a task's life.

The model predicts each result and error, and after every commit each field of each task, each
event and each line of the attempt log; memory and SQLite must both agree with it.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeAlias

import pytest
import trio
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engine.config import EngineConfig
from engine.core.commands import (
    AnyCommand,
    Cancel,
    Claim,
    Create,
    Execute,
    Finish,
    IdempotencyKey,
    Recover,
    Release,
    Retry,
    Sweep,
    Take,
    Update,
)
from engine.core.outcome import Answer
from engine.core.task import Dispatch, ErrorClass, RetryPolicy
from tests.models.both_stores import both_stores, differing, expected
from tests.models.effort import effort
from tests.models.lifecycle_model import Lifecycle, Row
from tests.support.builders import a_spec, an_id

START = datetime(2026, 1, 2, tzinfo=UTC)
CONFIG = EngineConfig(
    queue_max=8, recoveries_max=2, idempotency_s=60, ageing_s=10, lease_margin_s=5
)
POLICIES = [
    RetryPolicy(max_attempts=1),
    RetryPolicy(max_attempts=2, jitter=False),
    RetryPolicy(max_attempts=4, initial_interval_s=4, max_interval_s=8),
]
ANSWERS = [
    Answer(status_code=200, body=b"fine"),
    Answer(status_code=500),
    Answer(status_code=302),
    Answer(status_code=410),
    Answer(status_code=503, headers={"retry-after": "30"}),
    Answer(status_code=500, headers={"x-task-no-retry": "true"}),
    Answer(error_class=ErrorClass.TIMEOUT, error="too slow"),
    Answer(error_class=ErrorClass.INTERRUPTED, error="stopped"),
    Answer(error_class=ErrorClass.SHORTAGE, error="no descriptors"),
]
ANSWER = st.sampled_from(ANSWERS)
OWNERS = st.sampled_from(["me", "you"])
SECONDS = st.sampled_from([0, 1, 5, 20, 100])
LEASES = st.sampled_from([1.0, 30.0])
STEPS = [0.0, 0.5, 8.0, 200.0, -30.0, "due", "expires", "expires"]
ENDS = st.none() | st.tuples(st.sampled_from(STEPS), st.sampled_from([True] * 5 + [False]))
BY_CLIENTS = [Cancel, Retry, Release, Retry, Update, Take, Execute, Claim]
FIELDS = st.fixed_dictionaries(
    {
        "at_s": st.sampled_from([None, None, None, 0, 5, 100]),
        "partition_key": st.sampled_from([None, "k"]),
        "dispatch": st.sampled_from([Dispatch.AUTO, None, Dispatch.MANUAL]),
        "retry_policy": st.sampled_from(POLICIES),
        "priority": st.integers(-1, 1),
    }
)
FORGERIES: list[Row] = [{}, {}, {}, {"owner": "nobody"}, {"later": 1}, {"later": -1}]
NOBODY: Row = {"id": an_id(999), "status": "", "version": 1}


End: TypeAlias = tuple[float | str, bool] | None


class LifecycleMachine(RuleBasedStateMachine):
    """``batch`` is the transaction that is being put together; what the model says of it stands in
    ``foretold``."""

    @initialize(deadlines=st.lists(st.none() | SECONDS, min_size=2, max_size=4), data=st.data())
    def begin(self, deadlines: list[int | None], data: st.DataObject) -> None:
        self.model = Lifecycle(CONFIG, now=START)
        self.batch: list[AnyCommand] = []
        self.foretold: list[Any] = []
        self.before = deepcopy(self.model)
        self.number = 0
        self.claimed: list[Row] = []  # what executors were given, long ago or just now
        self.resources = AsyncExitStack()
        self.stores = trio.from_thread.run(self.resources.enter_async_context, both_stores(CONFIG))
        self.sound = True
        for deadline_s in deadlines:
            self.create(1, None, deadline_s, None, **data.draw(FIELDS))

    def do(self, command: AnyCommand) -> None:
        """One more command of the transaction."""
        self.batch.append(command)
        self.foretold.append(expected(self.model, command))
        if isinstance(command, Claim) and isinstance(self.foretold[-1], dict):
            self.claimed.append(self.foretold[-1])

    @rule(
        copies=st.integers(1, 2),
        delay_s=st.sampled_from([None, None, 1, 20]),
        deadline_s=st.none() | SECONDS,
        key=st.none() | st.builds(IdempotencyKey, st.sampled_from("pq"), st.sampled_from("xxy")),
        fields=FIELDS,
        end=ENDS,
    )
    def accept(self, fields: dict[str, Any], end: End, **more: Any) -> None:
        self.create(**more, **fields)
        self.end(end)

    def create(
        self,
        copies: int,
        delay_s: int | None,
        deadline_s: int | None,
        key: IdempotencyKey | None,
        **fields: Any,
    ) -> None:
        at_s = fields.pop("at_s")
        spec = a_spec(
            delay_s=delay_s,
            run_at=None if at_s is None or delay_s is not None else self.at(at_s),
            deadline=None if deadline_s is None else self.at(deadline_s),
            **fields,
        )
        self.number += copies
        new = [an_id(self.number - n) for n in reversed(range(copies))]
        self.do(Create(tuple((task_id, spec) for task_id in new), key))

    @rule(data=st.data(), times=st.integers(1, 3), answer=ANSWER, owner=OWNERS, end=ENDS)
    def drive(self, data: st.DataObject, times: int, answer: Answer, owner: str, end: End) -> None:
        """Tasks go on, on the way that tasks go."""
        for _ in range(times):
            self.go_on(data, answer, owner)
        self.end(end)

    def go_on(self, data: st.DataObject, answer: Answer, owner: str) -> None:
        row = self.some_row(data, living=True)
        match row["status"]:
            case "Queued" if row["lane"] == "take":
                self.do(Take(row["id"], data.draw(LEASES)))
            case "Pending" if row["lane"] is None:
                self.do(Execute(row["id"]))
            case "Processing":
                self.do(self.finishing(row, answer))
            case _:
                self.do(Claim(row["id"], owner))

    @rule(data=st.data(), kind=st.sampled_from(BY_CLIENTS), owner=OWNERS, end=ENDS)
    def interfere(self, data: st.DataObject, kind: type[Any], owner: str, end: End) -> None:
        """Somebody wants something of any task."""
        row = self.some_row(data)
        version = data.draw(st.sampled_from([None, None, row["version"], row["version"] - 1]))
        if kind is Take:
            self.do(Take(row["id"], data.draw(LEASES)))
        elif kind is Claim:
            self.do(Claim(row["id"], owner))
        elif kind is Cancel:
            self.do(Cancel(row["id"], data.draw(st.booleans()), version))
        elif kind is Update:
            moment = data.draw(SECONDS)
            new: list[dict[str, Any]] = [{"priority": 1}, {"run_at": self.at(moment)}]
            changes = data.draw(st.sampled_from(new))
            self.do(Update(row["id"], changes, version))
        else:
            self.do(kind(row["id"]))
        self.end(end)

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), answer=ANSWER, forged=st.sampled_from(FORGERIES), end=ENDS)
    def finish_late(self, data: st.DataObject, answer: Answer, forged: Row, end: End) -> None:
        """The result of an attempt that may have been taken away long ago, or never was ours."""
        row = data.draw(st.sampled_from(self.claimed))
        attempt = row["attempt"] + forged.get("later", 0)
        self.do(self.finishing(row | {"attempt": attempt} | forged, answer))
        self.end(end)

    @rule(kind=st.sampled_from([Sweep, Sweep, Sweep, Recover]), data=st.data(), end=ENDS)
    def tidy(self, kind: type[Any], data: st.DataObject, end: End) -> None:
        limit = data.draw(st.integers(1, 3))
        known = sorted({row["id"] for row in self.claimed})
        if kind is Recover:
            self.do(Recover(data.draw(OWNERS), limit))
        else:
            in_flight = data.draw(st.sets(st.sampled_from(known))) if known else set()
            self.do(Sweep(limit, frozenset(in_flight)))
        self.end(end)

    def end(self, end: End) -> None:
        """Commit what has gathered, or let the commit fail: then nothing of it has happened. The
        clock goes on, or is set back."""
        if end is None or not self.batch:
            return
        then, succeeds = end
        self.sound = False
        if succeeds:
            answered = trio.from_thread.run(self.stores.commit, self.batch, self.model.now)
            for command, answer, foretold in zip(self.batch, answered, self.foretold, strict=True):
                assert answer == foretold, f"{command}: {differing(answer, foretold)}"
        else:
            trio.from_thread.run(self.stores.undo, self.batch, self.model.now)
            self.model = self.before
            known = self.model.rows
            self.claimed = [row for row in self.claimed if row["id"] in known]
        self.begin_next(then)

    def begin_next(self, then: float | str) -> None:
        trio.from_thread.run(self.stores.agrees_with, self.model)
        self.sound = True
        self.batch, self.foretold = [], []
        if isinstance(then, str):  # the moment of the next task
            moments = [row[then] for row in self.model.living().values() if row[then]]
            self.model.now = min((m for m in moments if m > self.model.now), default=self.at(1))
        else:
            self.model.now = self.at(then)
        self.before = deepcopy(self.model)

    def teardown(self) -> None:
        if not hasattr(self, "stores"):
            return
        try:
            if self.sound:
                self.end((0.0, True))
                self.all_end()
        finally:
            trio.from_thread.run(self.resources.aclose)

    def all_end(self) -> None:
        """Whatever has happened: what is accepted ends, in a bounded number of steps."""
        self.do(Recover("the next start", 100))
        for _ in range(4 * len(self.model.rows) + 4):
            if not self.model.living():
                break
            for task_id, row in list(self.model.living().items()):
                if row["lane"] == "take" and self.model.is_free(row):
                    self.do(Take(task_id, 10.0))
                    self.do(Execute(task_id))
                elif row["status"] == "Pending" and row["lane"] is None:
                    self.do(Execute(task_id))
                if self.model.is_free(row):
                    self.do(Claim(task_id, "me"))
                if row["status"] == "Processing":
                    self.do(self.finishing(row, ANSWERS[0]))
            self.do(Sweep(1))
            self.end((100.0, True))
        assert not self.model.living()

    def at(self, seconds: float) -> datetime:
        return self.model.now + timedelta(seconds=seconds)

    def some_row(self, data: st.DataObject, *, living: bool = False) -> Row:
        """One of the tasks; if there is none that fits, one that does not exist."""
        rows = self.model.living() if living else self.model.rows
        return data.draw(st.sampled_from([*rows.values(), *([] if rows else [NOBODY])]))

    def finishing(self, row: Row, answer: Answer) -> Finish:
        return a_finish(row["id"], row["owner"], row["attempt"], answer, self.model.now)


def a_finish(task_id: str, owner: str, attempt: int, answer: Answer, now: datetime) -> Finish:
    return Finish(
        task_id=task_id,
        owner=owner,
        attempt=attempt,
        answer=answer,
        started_at=now,
        duration_s=0.25,
        jitter=0.5,
    )


@pytest.mark.slow
@pytest.mark.proof
async def test_the_lifecycle_is_that_of_the_model() -> None:
    await trio.to_thread.run_sync(
        partial(run_state_machine_as_test, LifecycleMachine, settings=effort(30, steps=30))
    )


async def test_a_deadline_holds_though_the_last_attempt_has_just_ended() -> None:
    """The sweep may have been asked for while the attempt was in flight; meanwhile it has failed,
    and another round was asked for. No lease is there to be renewed."""
    task_id = an_id(1)
    spec = a_spec(deadline=START + timedelta(seconds=1), retry_policy=POLICIES[0])
    model = Lifecycle(CONFIG, START)
    commands: list[AnyCommand] = [Create(((task_id, spec),)), Claim(task_id, "me")]
    async with both_stores(CONFIG) as stores:
        foretold = [expected(model, command) for command in commands]
        assert await stores.commit(commands, model.now) == foretold
        model.now += timedelta(seconds=2)
        commands = [
            a_finish(task_id, "me", 1, Answer(status_code=410), model.now),
            Retry(task_id),
            Sweep(1, frozenset({task_id})),
        ]
        foretold = [expected(model, command) for command in commands]
        assert model.rows[task_id]["status"] == "Failed"
        assert await stores.commit(commands, model.now) == foretold
        await stores.agrees_with(model)
