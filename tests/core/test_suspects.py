"""Tasks that may be what ends the process: who they are, and how many of them run."""

from __future__ import annotations

import attrs
import pytest

from engine.config import EngineConfig
from engine.core.breaker import Ending
from engine.core.destination import Report
from engine.core.destinations import Admission, Destinations, SuspectHold
from engine.core.suspects import (
    LINES,
    PATIENCE_S,
    PRIME_AFTER,
    PRIME_SUSPECTS,
    SUSPECT_AFTER,
    SUSPECTS,
    SUSPECTS_MAX,
    UP_S,
    Suspects,
    queued_for,
)
from tests.support.builders import a_task

A = "http://a:80"
FREE, ROOM, FULL, SHUT = Admission


@pytest.mark.parametrize(
    ("recoveries", "line"),
    [
        (0, A),
        (SUSPECT_AFTER - 1, A),
        (SUSPECT_AFTER, SUSPECTS),
        (PRIME_AFTER, PRIME_SUSPECTS),
        (PRIME_AFTER + 5, PRIME_SUSPECTS),
    ],
)
def test_who_was_lost_again_and_again_is_a_suspect(recoveries, line):
    task = attrs.evolve(a_task(callback_url="http://a/it"), recoveries=recoveries)
    assert queued_for(task) == line


def test_by_default_only_prime_suspects_are_parked_when_lost_once_more():
    assert EngineConfig().recoveries_max == PRIME_AFTER + 1


def test_a_few_suspects_run_at_once():
    it = Suspects(-UP_S)
    for seat in range(SUSPECTS_MAX):
        assert it.may_run(SUSPECTS, 0.0)
        it.started(seat, SUSPECTS)
    assert not it.may_run(SUSPECTS, 0.0)
    assert it.ended(3)
    assert it.may_run(SUSPECTS, 0.0)
    assert not it.ended(3)
    assert repr(it) == f"<Suspects {SUSPECTS_MAX - 1}>"


def test_a_prime_suspect_runs_while_no_other_suspect_does():
    it = Suspects(-UP_S)
    it.started("one", SUSPECTS)
    assert not it.may_run(PRIME_SUSPECTS, 0.0)
    it.ended("one")
    assert it.may_run(PRIME_SUSPECTS, 0.0)
    it.started("one", PRIME_SUSPECTS)
    assert repr(it) == "<Suspects 1, a prime one>"
    assert not it.may_run(PRIME_SUSPECTS, 0.0)
    assert not it.may_run(SUSPECTS, 0.0)
    it.ended("one")
    assert it.may_run(SUSPECTS, 0.0)


def test_a_prime_suspect_does_not_wait_for_ever_while_others_come_and_go():
    it = Suspects(-UP_S)
    it.started("one", SUSPECTS)
    assert not it.may_run(PRIME_SUSPECTS, 10.0)
    assert it.may_run(SUSPECTS, 10.0 + PATIENCE_S - 0.1)
    it.started("another", SUSPECTS)
    assert not it.may_run(PRIME_SUSPECTS, 12.0)
    assert not it.may_run(SUSPECTS, 10.0 + PATIENCE_S), "the first refusal counts"
    it.ended("one")
    assert not it.may_run(SUSPECTS, 20.0)
    it.ended("another")
    assert it.may_run(SUSPECTS, 20.0), "it may have gone away, or come behind them"
    assert it.may_run(PRIME_SUSPECTS, 20.0)
    it.started("one", SUSPECTS)
    assert it.may_run(SUSPECTS, 20.0)


@pytest.mark.parametrize(
    "report", [None, Report(Ending.FAILED, 0.1, "503"), Report(Ending.GOOD, 9)]
)
def test_whatever_became_of_a_suspect_the_lines_are_asked_again(report):
    it = Destinations(EngineConfig(), -UP_S)
    it.changed(0.0)
    assert it.admission(PRIME_SUSPECTS, lambda _: True, 0.0) is ROOM
    it.started("seat", PRIME_SUSPECTS, 0.0)
    for line in LINES:
        assert it.admission(line, lambda _: True, 0.0) is SHUT
        assert it.hold(line, lambda _: True, 0.0) == SuspectHold(0.0, 1)
    assert it.in_flight == 1
    assert it.changed(0.0) == []
    it.ended("seat", 1.0, report)
    assert it.changed(1.0) == list(LINES)
    assert it.hold(SUSPECTS, lambda _: True, 1.0) is None
    assert it.in_flight == 0
    assert it.figures(1.0).known == 0, "no destination was told of it"


def test_a_seat_that_is_given_another_task_is_no_suspects_any_more():
    it = Destinations(EngineConfig(), -UP_S)
    it.started("seat", PRIME_SUSPECTS, 0.0)
    it.started("seat", A, 1.0)
    assert it.in_flight == 1
    assert it.admission(PRIME_SUSPECTS, lambda _: True, 1.0) is ROOM


def test_no_suspect_runs_before_the_process_has_been_up_for_a_while():
    it = Destinations(EngineConfig(), 100.0)
    for line in LINES:
        assert it.admission(line, lambda _: True, 100.0 + UP_S - 0.1) is SHUT
        assert it.hold(line, lambda _: True, 101.0) == SuspectHold(UP_S - 1.0, 0)
        assert it.admission(line, lambda _: True, 100.0 + UP_S) is ROOM
    assert it.changed(100.0) == []
    assert it.next_change(100.0) == UP_S
    assert sorted(it.changed(100.0 + UP_S)) == sorted(LINES)
    assert it.next_change(100.0 + UP_S) is None
