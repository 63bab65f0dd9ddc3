"""The race of completion, cancel, lease expiry and retry for one task, in every way it can go.

An attempt runs, and its lease is over. Its result comes in, a client cancels it in flight, the
sweep looks for dead leases, somebody asks for another round: in all 24 orders, with an executor of
the same engine claiming the task again wherever it can between them, and in all ways of grouping
these commands into transactions. For each kind of result, and with settings that forgive a lost
attempt or give up at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations, product
from typing import Any, TypeAlias

import attrs
import pytest

from engine.config import EngineConfig
from engine.core.commands import AnyCommand, Cancel, Claim, Create, Finish, Retry, Sweep
from engine.core.outcome import Answer
from engine.core.task import Attempt, ErrorClass, Event, RetryPolicy, Status
from tests.models.both_stores import BothStores, both_stores, expected, row_of
from tests.models.lifecycle_model import Lifecycle
from tests.support.builders import a_spec, an_id

START = datetime(2026, 1, 2, tzinfo=UTC)
LATER = timedelta(seconds=100)  # longer than a lease: each transaction finds those before it over
SPEC = a_spec(retry_policy=RetryPolicy(max_attempts=2, initial_interval_s=0))
ANSWERS = {
    "success": Answer(status_code=200),
    "failure": Answer(status_code=500),
    "permanent": Answer(status_code=410),
    "interrupted": Answer(error_class=ErrorClass.INTERRUPTED, error="stopped"),
}
FORGIVING = {"parks what is lost": 1, "repeats what is lost": 3}

Schedule: TypeAlias = tuple[tuple[str, ...], ...]
"""What happens, by name, in transactions."""

EXPLORED = {
    ("parks what is lost", "success"): 272,
    ("parks what is lost", "failure"): 528,
    ("parks what is lost", "permanent"): 352,
    ("parks what is lost", "interrupted"): 528,
    ("repeats what is lost", "success"): 432,
    ("repeats what is lost", "failure"): 776,
    ("repeats what is lost", "permanent"): 528,
    ("repeats what is lost", "interrupted"): 776,
}
"""How many ways there are; all of them together: 4,192."""


def schedules() -> Iterator[Schedule]:
    """Every order, every set of claims between, every grouping."""
    for order in permutations(("complete", "cancel", "sweep", "retry")):
        for claims in product((False, True), repeat=3):
            steps = [order[0]]
            for claimed, step in zip(claims, order[1:], strict=True):
                steps += ["claim", step] if claimed else [step]
            for cuts in product((False, True), repeat=len(steps) - 1):
                yield grouped(steps, cuts)


def grouped(steps: Sequence[str], cuts: Sequence[bool]) -> Schedule:
    groups = [[steps[0]]]
    for cut, step in zip(cuts, steps[1:], strict=True):
        if cut:
            groups.append([])
        groups[-1].append(step)
    return tuple(map(tuple, groups))


@attrs.define
class Race:
    """One task in one race, told to the model as it goes."""

    task_id: str
    answer: Answer
    model: Lifecycle

    def command(self, step: str) -> AnyCommand:
        match step:
            case "create":
                return Create(((self.task_id, SPEC),))
            case "claim":
                return Claim(self.task_id, "us")
            case "complete":
                return self.finish("us", 1, self.answer)
            case "cancel":
                return Cancel(self.task_id, in_flight=True)
            case "sweep":
                return Sweep(10)
            case _:
                return Retry(self.task_id)

    def finish(self, owner: str, attempt: int, answer: Answer) -> Finish:
        return Finish(
            task_id=self.task_id,
            owner=owner,
            attempt=attempt,
            answer=answer,
            started_at=START,
            duration_s=1.0,
            jitter=0.5,
        )

    def foretold(self, commands: Sequence[AnyCommand]) -> list[Any]:
        """What the model answers in the next transaction."""
        self.model.now += LATER
        return [expected(self.model, command) for command in commands]


def possible(schedule: Schedule, answer: Answer, config: EngineConfig) -> bool:
    """Whether every claim in it gets the task. One that does not is a schedule without it."""
    race = Race(an_id(1), answer, Lifecycle(config, START))
    race.foretold([race.command("create"), race.command("claim")])
    for group in schedule:
        results = race.foretold([race.command(step) for step in group])
        for step, result in zip(group, results, strict=True):
            if step == "claim" and not isinstance(result, dict):
                return False
    return True


async def run(stores: BothStores, race: Race, schedule: Schedule) -> None:
    """The race, to the end of the task; raises ``AssertionError`` where it goes wrong."""
    await told(stores, race, [race.command("create"), race.command("claim")])
    outcomes: dict[str, Any] = {}
    for group in schedule:
        answers = await told(stores, race, [race.command(step) for step in group])
        outcomes |= zip(group, answers, strict=True)
    row = race.model.rows[race.task_id]
    success = ANSWERS["success"]
    if row["status"] == "Retrying":
        again = race.finish("us", row["attempt"] + 1, success)
        await told(stores, race, [race.command("claim"), again])
    elif row["status"] == "Processing":
        await told(stores, race, [race.finish("us", row["attempt"], success)])
    await nothing_overwrites(stores, race)
    history = await stores.sqlite.task_events(race.task_id)
    attempts = await stores.sqlite.attempts(race.task_id)
    one_has_won(race, outcomes, history, attempts[0])
    assert [one.number for one in attempts] == list(range(1, row["attempt"] + 1))


async def told(stores: BothStores, race: Race, commands: Sequence[AnyCommand]) -> list[Any]:
    """What the stores answer to one transaction, which is what the model foretold."""
    foretold = race.foretold(commands)
    answers = await stores.commit(commands, race.model.now)
    assert answers == foretold
    return answers


def one_has_won(
    race: Race, outcomes: dict[str, Any], history: Sequence[Event], first: Attempt
) -> None:
    """Exactly one of completion, cancel and sweep ended the first attempt; the log says which, and
    the completion that came too late was told so. The history tells of one end, the last event."""
    left = [(event.attempt, event.from_status) for event in history]
    assert left.count((1, Status.PROCESSING)) == 1
    completed = isinstance(outcomes["complete"], dict)
    assert completed == (first.result == race.answer.result)
    if not completed:
        assert outcomes["complete"] == ("ClaimLost", race.task_id, None)
        assert first.result.error_class in (ErrorClass.CANCELLED, ErrorClass.LOST)
    final = [event for event in history if event.to_status in ("Completed", "Cancelled")]
    assert final == ([] if history[-1].to_status == "Failed" else list(history[-1:]))
    numbers = [event.attempt for event in history]
    assert numbers == sorted(numbers)


async def nothing_overwrites(stores: BothStores, race: Race) -> None:
    """The task has ended once and for all: no late result, of any attempt, and nothing else but
    another round for what has Failed, changes it."""
    ended = dict(race.model.rows[race.task_id])
    assert ended["status"] in ("Completed", "Failed", "Cancelled")
    late: list[AnyCommand] = [
        race.finish(owner, attempt, answer)
        for owner, attempt in (("us", 1), ("us", 2), ("us", 3), ("others", 1))
        for answer in (ANSWERS["success"], race.answer)
    ]
    late += [race.command(step) for step in ("cancel", "claim", "sweep")]
    answers = await told(stores, race, late)
    assert not [one for one in answers if isinstance(one, dict)]
    for store in (stores.memory, stores.sqlite):
        task = await store.get(race.task_id)
        assert task is not None
        assert row_of(task) == ended


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("forgiving", FORGIVING)
async def test_exactly_one_wins_and_nothing_late_overwrites(forgiving: str, answer: str) -> None:
    config = EngineConfig(recoveries_max=FORGIVING[forgiving])
    explored = 0
    async with both_stores(config) as stores:
        for schedule in schedules():
            if possible(schedule, ANSWERS[answer], config):
                explored += 1
                model = Lifecycle(config, START + explored * timedelta(days=1))
                await run(stores, Race(an_id(explored), ANSWERS[answer], model), schedule)
    assert explored == EXPLORED[forgiving, answer]
