"""The checker finds each way in which the promise can be broken; without one it finds nothing."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from engine.core.task import ErrorClass, Status
from tests.murder.checker import Rules, check
from tests.murder.history import AttemptSeen, CallSeen, Cut, EventSeen, Found, History, TaskSeen

RULES = Rules(excuses=frozenset({ErrorClass.LOST}), repeats_max=1)
LOST = AttemptSeen(1, ErrorClass.LOST, counted=False)
S = Status


@attrs.define
class Run:
    """A run in which one task was completed at once, one was lost in a kill, and one cancelled."""

    history: History
    found: Found

    def task(self, number: int, **changed: object) -> None:
        self.found.tasks[number] = attrs.evolve(self.found.tasks[number], **changed)  # type: ignore[arg-type]

    def event(self, number: int, **changed: object) -> None:
        self.found.events[number] = attrs.evolve(self.found.events[number], **changed)  # type: ignore[arg-type]

    def breaches(self) -> set[str]:
        return {breach.rule for breach in check(self.history, self.found, RULES).breaches}


def good_run() -> Run:
    history = History(
        accepted={"one": "1", "two": "2", "three": "3"},
        unknown={"four"},
        refused={"five"},
        batches=[("one", "two")],
        replays={"one": {"1"}},
        asked_to_cancel={"3"},
        cancelled={"3": 30.0},
        told={"1": S.COMPLETED},
        cuts=[Cut(20.0, 21.0)],
        cut_off=[20.0, 20.3],
    )
    history.taken["1"] = 1
    steps = [
        ("1", None, S.QUEUED, 0),
        ("1", S.QUEUED, S.PENDING, 0),
        ("1", S.PENDING, S.PROCESSING, 1),
        ("2", None, S.QUEUED, 0),
        ("3", None, S.QUEUED, 0),
        ("1", S.PROCESSING, S.COMPLETED, 1),
        ("2", S.QUEUED, S.PENDING, 0),
        ("2", S.PENDING, S.PROCESSING, 1),
        ("2", S.PROCESSING, S.RETRYING, 1),
        ("2", S.RETRYING, S.PROCESSING, 2),
        ("2", S.PROCESSING, S.COMPLETED, 2),
        ("3", S.QUEUED, S.CANCELLED, 0),
    ]
    events = [EventSeen(seq, *step) for seq, step in enumerate(steps, start=1)]
    history.watched = events[:8]
    found = Found(
        tasks=[
            TaskSeen("1", "one", S.COMPLETED, 1, partition_key="key"),
            TaskSeen("2", "two", S.COMPLETED, 2, partition_key="key"),
            TaskSeen("3", "three", S.CANCELLED, 0),
        ],
        attempts={"1": [AttemptSeen(1)], "2": [LOST, AttemptSeen(2)]},
        events=events,
        calls=[
            CallSeen("1", 1, 10.0, 10.1, 200),
            CallSeen("2", 1, 19.9, 20.0, 0),
            CallSeen("2", 2, 21.5, 21.6, 200),
        ],
    )
    return Run(history, found)


def test_a_good_run_has_no_breaches_and_its_figures_are_counted():
    run = good_run()
    report = check(run.history, run.found, RULES)
    assert report.breaches == []
    assert (report.repeats, report.recovered, report.parked) == ([1], 1, 0)
    assert report.sentence().startswith(
        "0 lost, 0 stuck, 0 unexpected, 0 stale, 0 repeated without a cut; 1 callbacks repeated"
    )


@pytest.mark.parametrize("called", [True, False])
def test_a_task_that_lost_too_many_attempts_is_parked_which_is_no_breach(called):
    run = good_run()
    steps = [
        (S.PROCESSING, S.RETRYING, 2),
        (S.RETRYING, S.PROCESSING, 3),
        (S.PROCESSING, S.FAILED, 3),
    ]
    run.found.events[10] = EventSeen(11, "2", *steps[0])
    run.found.events.extend(EventSeen(n, "2", *s) for n, s in enumerate(steps[1:], start=13))
    run.found.attempts["2"][:] = [attrs.evolve(LOST, number=number) for number in (1, 2, 3)]
    run.task(1, status=S.FAILED, attempt=3)
    del run.found.calls[2 if called else 1 :]
    report = check(run.history, run.found, attrs.evolve(RULES, recoveries_max=3))
    assert report.breaches == []
    assert (report.recovered, report.parked, report.uncalled) == (1, 1, not called)


def test_a_task_that_was_refused_for_good_has_failed_which_is_no_breach():
    run = good_run()
    failed_though_it_could_be_tried_again(run)
    run.task(1, path="/permanent")
    assert run.breaches() == set()


def accepted_but_gone(run: Run) -> None:
    run.history.accepted["six"] = "6"


def not_found_for_a_while(run: Run) -> None:
    run.history.not_found.add("1")


def never_sent(run: Run) -> None:
    run.history.unknown.add("six")
    run.found.tasks.append(TaskSeen("7", "seven", S.CANCELLED, 0))


def refused_but_there(run: Run) -> None:
    run.task(2, name="five")
    del run.history.accepted["three"]


def sent_once_there_twice(run: Run) -> None:
    run.task(2, name="one")
    del run.history.accepted["three"]


def key_answered_twice(run: Run) -> None:
    run.history.replays["one"].add("2")


def half_a_batch(run: Run) -> None:
    run.history.batches.append(("three", "four"))


def not_ended(run: Run) -> None:
    run.task(1, status=S.PROCESSING)


def failed_without_a_reason(run: Run) -> None:
    run.task(1, status=S.FAILED)
    run.event(10, after=S.FAILED)
    run.found.attempts["2"][1] = AttemptSeen(2, ErrorClass.TIMEOUT)


def failed_though_it_could_be_tried_again(run: Run) -> None:
    run.task(1, status=S.FAILED, path="/flaky")
    run.event(10, after=S.FAILED)
    run.found.attempts["2"][1] = AttemptSeen(2, ErrorClass.HTTP_STATUS)
    run.found.calls[2] = CallSeen("2", 2, 21.5, 21.6, 503)


def cancelled_by_nobody(run: Run) -> None:
    run.history.asked_to_cancel.clear()


def event_missing(run: Run) -> None:
    del run.found.events[-1]
    run.found.tasks.pop()
    run.found.events[-1] = attrs.evolve(run.found.events[-1], seq=12)


def watcher_missed_one(run: Run) -> None:
    del run.history.watched[3]


def watcher_told_too_early(run: Run) -> None:
    run.history.watched[7] = attrs.evolve(run.history.watched[7], after=S.CANCELLED)


def late_result_accepted(run: Run) -> None:
    """The first attempt's answer came after the second attempt had begun, and counted."""
    run.found.events[10] = attrs.evolve(run.found.events[10], attempt=1)


def illegal_step(run: Run) -> None:
    run.event(7, before=S.QUEUED)


def second_end(run: Run) -> None:
    run.found.events.append(EventSeen(13, "1", S.COMPLETED, S.RETRYING, 1))
    run.history.watched.clear()


def attempt_not_logged(run: Run) -> None:
    del run.found.attempts["2"][0]


def lost_attempt_counted(run: Run) -> None:
    run.found.attempts["2"][0] = attrs.evolve(LOST, counted=True)


def completed_though_nobody_said_so(run: Run) -> None:
    run.found.calls[2] = CallSeen("2", 2, 21.5, 21.6, 503)


def number_used_twice(run: Run) -> None:
    run.found.calls.append(CallSeen("1", 1, 20.0, 20.1, 200))


def called_in_the_wrong_order(run: Run) -> None:
    run.found.calls[1] = CallSeen("2", 1, 22.0, 22.1, 0)


def called_for_an_unknown_attempt(run: Run) -> None:
    run.found.calls.append(CallSeen("1", 2, 20.0, 20.1, 200))


def called_but_not_there(run: Run) -> None:
    run.found.calls.append(CallSeen("8", 1, 20.0, 20.1, 200))


def repeated_without_a_kill(run: Run) -> None:
    run.history.cuts[0] = Cut(30.0, 31.0)


def repeated_though_not_lost(run: Run) -> None:
    run.found.attempts["2"][0] = AttemptSeen(1, ErrorClass.TIMEOUT)


def too_many_repeated(run: Run) -> None:
    run.found.attempts["1"] = [LOST, AttemptSeen(2)]
    run.found.calls[0] = CallSeen("1", 1, 19.0, 20.0, 0)
    run.found.calls.append(CallSeen("1", 2, 22.0, 22.1, 200))


def cancel_undone(run: Run) -> None:
    run.history.cancelled["2"] = 99.0


def called_after_its_cancel(run: Run) -> None:
    run.found.calls.append(CallSeen("3", 1, 32.0, 32.1, 200))


def told_another_end(run: Run) -> None:
    run.history.told["1"] = S.FAILED


def handed_out_without_a_lease(run: Run) -> None:
    run.history.taken["1"] = 2


def cut_off_by_a_server_that_lived(run: Run) -> None:
    run.history.cut_off.append(19.9)


def cut_off_while_the_callee_was_held(run: Run) -> None:
    run.history.cuts.append(Cut(24.0, 25.0, of_server=False))
    run.history.cut_off.append(24.5)


def key_overtaken(run: Run) -> None:
    """The second task of the key began before the first had ended."""
    run.history.watched.clear()
    events = run.found.events
    events[5], events[7] = attrs.evolve(events[7], seq=6), attrs.evolve(events[5], seq=8)
    events[5], events[6] = attrs.evolve(events[6], seq=6), attrs.evolve(events[5], seq=7)


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (accepted_but_gone, "lost"),
        (not_found_for_a_while, "lost"),
        (never_sent, "unexpected"),
        (refused_but_there, "unexpected"),
        (sent_once_there_twice, "doubled"),
        (key_answered_twice, "doubled"),
        (half_a_batch, "torn"),
        (not_ended, "stuck"),
        (failed_without_a_reason, "wrong end"),
        (failed_though_it_could_be_tried_again, "wrong end"),
        (cancelled_by_nobody, "wrong end"),
        (event_missing, "gap"),
        (watcher_missed_one, "gap"),
        (watcher_told_too_early, "premature"),
        (late_result_accepted, "stale"),
        (illegal_step, "stale"),
        (second_end, "stale"),
        (attempt_not_logged, "stale"),
        (lost_attempt_counted, "miscounted"),
        (completed_though_nobody_said_so, "stale"),
        (number_used_twice, "stale"),
        (called_in_the_wrong_order, "stale"),
        (called_for_an_unknown_attempt, "stale"),
        (called_but_not_there, "unexpected"),
        (repeated_without_a_kill, "repeated"),
        (repeated_though_not_lost, "repeated"),
        (too_many_repeated, "repeated"),
        (cancel_undone, "stale"),
        (called_after_its_cancel, "stale"),
        (told_another_end, "stale"),
        (handed_out_without_a_lease, "stale"),
        (cut_off_by_a_server_that_lived, "cut off"),
        (cut_off_while_the_callee_was_held, "cut off"),
        (key_overtaken, "out of order"),
    ],
    ids=lambda given: given.__name__ if callable(given) else "",
)
def test_every_breach_is_found(damage: Callable[[Run], None], rule: str):
    run = good_run()
    damage(run)
    assert rule in run.breaches()
