"""The queue's memory against the store itself and a plain sorted list.

The real commands change a real store; what they announce reaches the backlogs as in the engine: by
way of a broker, so late, twice, or not at all but for a note that something is missing; what waits
no longer is told at once. Whatever happens, nothing that waits becomes unreachable; and whenever
all has been told, the next task is the one that the README promises: the highest priority, raised
by one level for every ``ageing_s`` of waiting, then the older one, of those that may be given out.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engine.adapters.storage.memory_records import MemoryRecords
from engine.config import EngineConfig
from engine.core.backlog import Backlog
from engine.core.batch import Batch
from engine.core.changes import Changes
from engine.core.commands import (
    AnyCommand,
    Cancel,
    Claim,
    Create,
    Execute,
    Finish,
    Refill,
    Release,
    Retry,
    Sweep,
    Take,
    Update,
)
from engine.core.destination import destination_of
from engine.core.destinations import Admission, OthersWait
from engine.core.entries import Entry, Reading, Wanted, entry_of
from engine.core.outcome import Answer
from engine.core.task import Dispatch, Lane, RetryPolicy, Task, Wait
from engine.errors import EngineError
from engine.ports.broker import Hint
from tests.models.effort import effort
from tests.support.builders import a_spec, an_id

START = datetime(2026, 1, 2, tzinfo=UTC)
SIZE, SIDE_SIZE = 5, 2
AGEING_S = 10.0
CONFIG = EngineConfig(ageing_s=AGEING_S, recoveries_max=1_000_000)
URLS = {name: f"http://{name}.example/" for name in "abc"}
HOSTS = {name: destination_of(url) for name, url in URLS.items()}
ADMITTED = (Admission.FREE, Admission.ROOM)
LANES = st.sampled_from([Lane.RUN, Lane.RUN, Lane.RUN, Lane.TAKE])
DELAYS = st.sampled_from([0.0, 0.0, 0.0, 1.0, 3.0, 12.0, 60.0])


class BacklogMachine(RuleBasedStateMachine):
    """``on_the_way`` is what the broker still holds; ``missing`` whether it had to drop some."""

    @initialize(first=st.lists(st.integers(-2, 2), max_size=4))
    def begin(self, first: list[int]) -> None:
        self.records = MemoryRecords()
        self.backlogs = {lane: Backlog(SIZE, SIDE_SIZE) for lane in Lane}
        self.now = START
        self.number = 0
        self.on_the_way: deque[Hint] = deque()
        self.told: list[Hint] = []  # and may be told again
        self.missing = False
        self.readings: dict[Lane, tuple[Wanted, Reading | None]] = {}
        self.admissions = dict.fromkeys(HOSTS.values(), Admission.FREE)
        for priority in first:
            self.create(1, priority, "a", 0.0, Lane.RUN, None, told=False)

    # -- the store ---------------------------------------------------------------------------

    def commit(self, command: AnyCommand) -> Any:
        """The command's result, or why it is refused; and the announcements that follow."""
        batch = Batch(self.records)
        result: Any
        try:
            result = Changes(batch, CONFIG, self.now).apply(command)
        except EngineError as refused:
            result = refused
        batch.flush()
        self.records.keep()
        for task in batch.changed.values():
            if task.lane is not None and task.wait is not Wait.BLOCKED:
                self.on_the_way.append(Hint(task.lane, entry_of(task)))
            else:
                for backlog in self.backlogs.values():
                    backlog.remove(task.id)
        return result

    def tasks(self) -> list[Task]:
        return list(self.records.rows.by_id.values())

    def waiting(self, lane: Lane) -> list[Task]:
        """The plain list: what may be had of a lane now, in the promised order."""
        free = [
            task
            for task in self.tasks()
            if task.lane is lane and task.wait is not Wait.BLOCKED and task.due_at <= self.now
        ]
        if lane is Lane.RUN:
            free = [task for task in free if self.admission(task) in ADMITTED]
        return sorted(free, key=self.place)

    def place(self, task: Task) -> tuple[float, str]:
        waited_s = (self.now - task.due_at).total_seconds()
        return -(task.spec.priority + waited_s / AGEING_S), task.id

    def admission(self, task: Task) -> Admission:
        return self.admissions[destination_of(task.spec.callback_url)]

    @rule(
        copies=st.sampled_from([1, 1, 1, 2, 8]),
        priority=st.integers(-2, 2),
        to=st.sampled_from("aabc"),
        delay_s=DELAYS,
        lane=LANES,
        key=st.sampled_from([None, None, "k"]),
        told=st.booleans(),
    )
    def create(
        self,
        copies: int,
        priority: int,
        to: str,
        delay_s: float,
        lane: Lane,
        key: str | None,
        told: bool,
    ) -> None:
        spec = a_spec(
            priority=priority,
            callback_url=URLS[to],
            delay_s=delay_s,
            dispatch=Dispatch.AUTO if lane is Lane.RUN else Dispatch.MANUAL,
            partition_key=key,
            retry_policy=RetryPolicy(max_attempts=2),
        )
        self.number += copies
        new = range(self.number - copies + 1, self.number + 1)
        self.commit(Create(tuple((an_id(n), spec) for n in new)))
        if told and self.on_the_way:
            self.deliver(100)

    @precondition(lambda self: len(self.records.rows) > 0)
    @rule(data=st.data(), kind=st.sampled_from([Cancel, Update, Update, Release, Execute, Retry]))
    def interfere(self, data: st.DataObject, kind: type[Any]) -> None:
        task = data.draw(st.sampled_from(self.tasks()))
        if kind is Update:
            moment = self.now + timedelta(seconds=data.draw(DELAYS))
            url = URLS[data.draw(st.sampled_from("abc"))]
            changes = {"priority": 2, "run_at": moment, "callback_url": url}
            name = data.draw(st.sampled_from(list(changes)))
            self.commit(Update(task.id, {name: changes[name]}))
        else:
            self.commit(kind(task.id))

    @precondition(lambda self: self.records.rows.processing)
    @rule(data=st.data(), status=st.sampled_from([200, 500, 500, 410]))
    def end_attempt(self, data: st.DataObject, status: int) -> None:
        task_id = data.draw(st.sampled_from(list(self.records.rows.processing)))
        task = self.records.rows.by_id[task_id]
        answer = Answer(status_code=status)
        self.commit(
            Finish(task_id=task_id, owner="me", attempt=task.attempt, answer=answer,
                   started_at=self.now, duration_s=0.0, jitter=0.5)
        )  # fmt: skip

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0, 30.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.commit(Sweep(3))

    # -- what is told ------------------------------------------------------------------------

    @precondition(lambda self: self.on_the_way)
    @rule(most=st.sampled_from([1, 100]))
    def deliver(self, most: int) -> None:
        if self.missing:
            self.missing = False
            for backlog in self.backlogs.values():
                backlog.forget()
        while self.on_the_way and most:
            hint = self.on_the_way.popleft()
            self.backlogs[hint.lane].offer(hint.entry, self.now)
            self.told.append(hint)
            most -= 1

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        """Whatever was told before, true or not by now, goes the same way; the truth behind it."""
        hint = data.draw(st.sampled_from(self.told))
        self.on_the_way.append(hint)
        task = self.records.rows.by_id[hint.entry.task_id]
        if task.lane is not None and task.wait is not Wait.BLOCKED:
            self.on_the_way.append(Hint(task.lane, entry_of(task)))

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """There is no room for a hint; the next delivery says that some are missing."""
        at = data.draw(st.integers(0, len(self.on_the_way) - 1))
        if len(self.on_the_way) > 1:  # else there would be no next delivery
            del self.on_the_way[at]
            self.missing = True

    @rule(to=st.sampled_from("abc"), admission=st.sampled_from(Admission))
    def judge(self, to: str, admission: Admission) -> None:
        self.admissions[HOSTS[to]] = admission
        self.backlogs[Lane.RUN].wake([HOSTS[to]])

    # -- reading the store -------------------------------------------------------------------

    @rule(lane=LANES, steps=st.sampled_from([1, 1, 2, 3]))
    def refill(self, lane: Lane, steps: int) -> None:
        """Asked for, read, taken over: at once, or with others coming between."""
        for _ in range(steps):
            self.refill_step(lane)

    def refill_step(self, lane: Lane) -> None:
        backlog = self.backlogs[lane]
        if lane not in self.readings:
            wanted = backlog.wanted()
            if wanted is not None:
                backlog.refill_started(wanted)
                self.readings[lane] = (wanted, None)
            return
        wanted, reading = self.readings[lane]
        if reading is None:
            asked = Refill(
                lane,
                SIZE,
                page=wanted.page,
                without=wanted.without,
                sides=wanted.sides,
                side_limit=SIDE_SIZE if wanted.sides else 0,
            )
            self.readings[lane] = (wanted, self.commit(asked))
        else:
            del self.readings[lane]
            backlog.refill(reading, self.now)

    @rule(lane=LANES)
    def refill_fails(self, lane: Lane) -> None:
        if self.readings.pop(lane, None) is not None:
            self.backlogs[lane].refill_failed()

    # -- what is next ------------------------------------------------------------------------

    def admit(self, destination: str, _others_wait: OthersWait) -> Admission:
        return self.admissions[destination]

    def all_is_told(self, lane: Lane) -> bool:
        told = not self.on_the_way and not self.missing
        return told and lane not in self.readings and self.backlogs[lane].wanted() is None

    def pick(self, lane: Lane) -> Entry | None:
        admit = self.admit if lane is Lane.RUN else None
        return self.backlogs[lane].pick(self.now, admit)

    def claim(self, lane: Lane, task_id: str) -> bool:
        command = Claim(task_id, "me") if lane is Lane.RUN else Take(task_id, 20.0)
        return isinstance(self.commit(command), Task)

    @rule(lane=LANES, times=st.integers(1, SIZE), lost=st.sampled_from([False, False, True]))
    def hand_out(self, lane: Lane, times: int, lost: bool) -> None:
        """Ask for tasks and claim them; the claim may be lost on its way (the store was away)."""
        for _ in range(times):
            self.hand_out_one(lane)
        if lost and self.pick(lane) is not None:
            for backlog in self.backlogs.values():
                backlog.forget()

    def hand_out_one(self, lane: Lane) -> None:
        promised = [task.id for task in self.waiting(lane)]
        exact = self.all_is_told(lane)
        entry = self.pick(lane)
        while entry is not None and not self.claim(lane, entry.task_id):
            assert entry.task_id not in promised, "a claim of a free task was refused"
            exact = exact and not self.on_the_way  # what was wrong about it is being told
            entry = self.pick(lane)
        if exact and self.backlogs[lane].wanted() is None:
            found = None if entry is None else entry.task_id
            assert found == (promised[0] if promised else None)
        if promised and entry is None and not self.on_the_way and not self.missing:
            assert not self.backlogs[lane].drained, "drained, but a task waits"

    @invariant()
    def is_bounded(self) -> None:
        for backlog in getattr(self, "backlogs", {}).values():
            assert len(backlog) <= 2 * SIZE + len(HOSTS) * SIDE_SIZE

    def teardown(self) -> None:
        """From here on nothing new happens: every task that waits must be handed out in the end."""
        if not hasattr(self, "records"):
            return
        for name, host in HOSTS.items():
            if self.admissions[host] not in ADMITTED:
                self.judge(name, Admission.ROOM)
        for _ in range(6 * len(self.records.rows) + 12):
            self.now += timedelta(seconds=100)
            for task_id in list(self.records.rows.processing):
                self.commit(Cancel(task_id, in_flight=True))  # what was handed out ends
            for task in self.tasks():
                if task.lane is None and task.status == "Pending":
                    self.commit(Cancel(task.id))
            if self.on_the_way:
                self.deliver(100)
            for lane in Lane:
                self.refill(lane, 3)
                self.hand_out_one(lane)
        left = [task.id for task in self.tasks() if task.lane is not None]
        assert not left, f"nobody can reach {left}: {self.backlogs}"


@pytest.mark.slow
@pytest.mark.proof
def test_nothing_that_waits_is_unreachable_and_the_order_is_as_promised() -> None:
    run_state_machine_as_test(BacklogMachine, settings=effort(200, steps=40))
