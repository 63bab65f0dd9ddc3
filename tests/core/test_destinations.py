"""Where callbacks go: what they are called, who is held to a few attempts, and who is let go again."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from engine.config import EngineConfig
from engine.core.breaker import BreakerState, Ending
from engine.core.destination import Report, destination_of, report_of
from engine.core.destinations import (
    KNOWN_MAX,
    LOOKED_AT_MAX,
    SHOWN_MAX,
    Admission,
    BreakerHold,
    Destinations,
    LimitHold,
)
from engine.core.outcome import Answer
from engine.core.suspects import UP_S
from engine.core.task import ErrorClass

CONFIG = EngineConfig()
A, B = "http://a:80", "http://b:80"
FREE, ROOM, FULL, SHUT = Admission
FINE = Report(Ending.GOOD, 0.1)
SLOW = Report(Ending.GOOD, 5.1)
FAILED = Report(Ending.FAILED, 0.1, "the callback answered 503")
NOTHING = Report(Ending.NEUTRAL, 0.1)


def nobody_waits(_: str) -> bool:
    return False


def somebody_waits(_: str) -> bool:
    return True


class Rig:
    """Destinations, with seats that nobody has to name."""

    def __init__(self, config: EngineConfig = CONFIG) -> None:
        self.it = Destinations(config, -UP_S)
        self.it.changed(0.0)  # suspects may run: it is up for a while
        self._seats = iter(range(1_000_000))

    def start(self, number: int, destination: str = A, now: float = 0.0) -> list[int]:
        seats = [next(self._seats) for _ in range(number)]
        for seat in seats:
            self.it.started(seat, destination, now)
        return seats

    def end(self, seats: list[int], report: Report | None, now: float) -> None:
        for seat in seats:
            self.it.ended(seat, now, report)

    def tried(self, number: int, report: Report, now: float = 0.0, destination: str = A) -> None:
        """One after the other."""
        for _ in range(number):
            self.end(self.start(1, destination, now), report, now)

    def admission(
        self, now: float = 0.0, destination: str = A, *, others: bool = True
    ) -> Admission:
        return self.it.admission(destination, somebody_waits if others else nobody_waits, now)

    def most(self, now: float, destination: str = A, *, others: bool = True) -> int:
        """How many more could be handed out now."""
        seats: list[int] = []
        while self.admission(now, destination, others=others) in (FREE, ROOM) and len(seats) < 200:
            seats += self.start(1, destination, now)
        self.end(seats, None, now)
        return len(seats)


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://example.com/hook?a=b", "http://example.com:80"),
        ("HTTPS://EXAMPLE.com", "https://example.com:443"),
        ("https://example.com.:443/", "https://example.com:443"),
        ("http://example.com:8080/x", "http://example.com:8080"),
        ("http://[::1]:9/", "http://[::1]:9"),
        ("http://[FE80::1]", "http://[fe80::1]:80"),
        ("http://127.0.0.1", "http://127.0.0.1:80"),
        ("http://[", ""),
        ("http://a:b/", ""),
        ("ftp://a/", ""),
        ("", ""),
    ],
)
def test_a_destination_is_scheme_host_and_port(url: str, name: str) -> None:
    assert destination_of(url) == name


@given(st.text(max_size=40))
def test_no_text_is_too_odd_for_a_name(url: str) -> None:
    assert isinstance(destination_of(url), str)


def test_a_report_says_what_an_answer_tells_of_its_destination() -> None:
    assert report_of(Answer(status_code=200), 0.5) == Report(Ending.GOOD, 0.5)
    assert report_of(Answer(status_code=503), 0.1) == FAILED
    refused = Answer(error_class=ErrorClass.REFUSED, error="x" * 1000)
    assert report_of(refused, 0.1) == Report(Ending.FAILED, 0.1, "x" * 200)
    assert report_of(Answer(error_class=ErrorClass.SHORTAGE, error="no"), 0.1) == NOTHING


# -- the limit ---------------------------------------------------------------------------------


def test_who_answers_well_may_have_everything() -> None:
    rig = Rig()
    rig.tried(1, FINE)
    assert rig.admission() is FREE
    assert rig.most(1.0) == 200


def test_nobody_knows_yet_whether_a_new_one_is_dead() -> None:
    rig = Rig()
    assert rig.most(0.0) == 20
    assert rig.admission() is ROOM


def test_alone_a_new_one_may_have_everything() -> None:
    rig = Rig()
    assert rig.most(0.0, others=False) == 200
    assert rig.admission(others=False) is ROOM  # but it has not shown yet that it is well


def test_a_new_one_is_not_alone_while_another_one_runs() -> None:
    rig = Rig()
    other = rig.start(1, B)
    assert rig.most(100.0, others=False) == 20
    rig.end(other, NOTHING, 100.0)
    assert rig.most(100.0, others=False) == 200


@pytest.mark.parametrize("first", [A, B])
def test_a_new_one_is_not_alone_soon_after_another_one_was_called(first: str) -> None:
    rig = Rig()
    for destination in (first, B, A):
        rig.end(rig.start(1, destination, 0.0), NOTHING, 0.0)
    assert rig.most(59.0, others=False) == 20
    rig.tried(1, NOTHING, 59.0)
    assert rig.most(61.0, others=False) == 200


def test_an_answer_that_is_long_ago_proves_nothing() -> None:
    rig = Rig()
    rig.tried(1, FINE)
    assert rig.most(60.0) == 200
    rig = Rig()
    rig.tried(1, FINE)
    assert rig.most(60.1) == 20


@pytest.mark.parametrize("bad", [FAILED, SLOW])
def test_who_answers_badly_is_held(bad: Report) -> None:
    rig = Rig()
    rig.tried(20, FINE)
    rig.tried(9, bad)
    assert rig.most(0.0) == 200
    rig.tried(1, bad)
    assert rig.most(0.0) == 20
    assert rig.most(0.0, others=False) == 20  # also when it is alone: it might not stay so


def test_few_attempts_say_nothing_against_it() -> None:
    rig = Rig()
    rig.tried(1, FINE)
    rig.tried(8, SLOW)
    assert rig.most(0.0) == 200
    rig.tried(1, SLOW)
    assert rig.most(0.0) == 20


def test_a_host_that_hangs_is_found_out_before_its_attempts_end() -> None:
    """However many it has answered in the last minute."""
    rig = Rig()
    rig.tried(10_000, FINE)
    rig.start(19, now=10.0)
    assert rig.most(15.0) == 200
    rig.start(1, now=10.0)
    assert rig.admission(15.0) is FREE
    assert rig.admission(15.1) is FULL


def test_it_is_let_go_when_it_answers_well_again_and_not_before() -> None:
    rig = Rig()
    rig.tried(20, SLOW)
    rig.tried(15, FINE)
    assert rig.most(0.0) == 20  # no back and forth around the half
    rig.tried(1, FINE)
    assert rig.most(0.0) == 200


def test_what_it_did_a_minute_ago_is_not_held_against_it() -> None:
    rig = Rig()
    rig.tried(20, SLOW)
    assert rig.most(60.0) == 20
    assert rig.most(60.1, others=False) == 200


def test_a_small_pool_is_protected_as_well() -> None:
    assert Rig(EngineConfig(executors=10)).most(0.0) == 5
    assert Rig(EngineConfig(executors=1)).most(0.0) == 1
    assert Rig(EngineConfig(executors=10, unhealthy_limit=3)).most(0.0) == 3


def test_a_limit_says_why() -> None:
    rig = Rig()
    assert rig.it.hold(A, somebody_waits, 0.0) is None
    rig.start(20)
    assert rig.it.hold(A, somebody_waits, 0.0) == LimitHold(
        limit=20, running=20, slow_s=None, unproven_s=60.0
    )
    assert rig.it.hold(A, nobody_waits, 0.0) is None
    assert rig.it.hold(A, nobody_waits, 6.0) == LimitHold(
        limit=20, running=20, slow_s=5.0, unproven_s=60.0
    )


# -- the breaker -------------------------------------------------------------------------------


def test_an_open_breaker_admits_nothing_and_then_one() -> None:
    rig = Rig()
    rig.tried(10, FAILED)
    assert rig.admission(29.9, others=False) is SHUT
    assert rig.it.next_change(10.0) == 20.0
    assert rig.it.changed(29.9) == [A]  # its attempts have ended
    assert rig.it.changed(29.9) == []
    assert rig.it.changed(30.0) == [A]
    assert rig.it.next_change(30.0) is None
    (probe,) = rig.start(1, now=30.0)
    assert rig.admission(59.9) is SHUT
    assert rig.it.next_change(30.0) == 30.0
    rig.end([probe], NOTHING, 31.0)
    assert rig.it.changed(31.0) == [A]
    assert rig.admission(31.0) is ROOM


def test_a_good_probe_lets_it_have_more_and_more() -> None:
    rig = Rig()
    rig.tried(20, FAILED)
    rig.tried(1, FINE, 31.0)
    assert rig.most(31.0) == 20  # one good answer is not yet a recovery
    rig.tried(15, FINE, 32.0)
    assert rig.most(32.0) == 200
    assert rig.it.changed(32.0) == [A]


def test_a_probe_does_not_come_on_top_of_too_many_that_hang() -> None:
    rig = Rig()
    rig.start(20)
    rig.end(rig.start(10), FAILED, 0.0)
    assert rig.admission(31.0) is FULL


def test_a_breaker_says_why() -> None:
    rig = Rig()
    rig.tried(3, FINE)
    rig.tried(7, FAILED)
    hold = rig.it.hold(A, nobody_waits, 10.0)
    assert hold == BreakerHold(
        state=BreakerState.OPEN,
        for_s=20.0,
        failures=7,
        attempts=10,
        last_error="the callback answered 503",
    )
    rig.start(1, now=30.0)
    hold = rig.it.hold(A, nobody_waits, 40.0)
    assert isinstance(hold, BreakerHold)
    assert (hold.state, hold.for_s) == (BreakerState.HALF_OPEN, 20.0)


# -- seats -------------------------------------------------------------------------------------


def test_a_seat_has_one_attempt_at_a_time() -> None:
    rig = Rig()
    rig.it.started("seat", A, 0.0)
    rig.it.started("seat", B, 0.0)
    assert [(one.destination, one.in_flight) for one in rig.it.figures(0.0).worst] == [
        (B, 1),
        (A, 0),
    ]
    rig.it.ended("seat", 0.0, None)
    rig.it.ended("seat", 0.0, FAILED)  # of what? nobody sits there
    assert [(one.in_flight, one.failures) for one in rig.it.figures(0.0).worst] == [(0, 0)] * 2


def test_without_a_report_only_the_seat_is_freed() -> None:
    rig = Rig()
    rig.end(rig.start(50), None, 0.0)
    (figures,) = rig.it.figures(0.0).worst
    assert (figures.in_flight, figures.attempts, figures.failures) == (0, 0, 0)


# -- figures -----------------------------------------------------------------------------------


def test_the_worst_come_first() -> None:
    rig = Rig()
    rig.tried(3, FINE, destination="http://well:80")
    rig.tried(20, SLOW, destination="http://slow:80")
    rig.tried(10, FAILED, destination="http://dead:80")
    rig.tried(10, FAILED, -31.0, destination="http://half:80")
    for n in range(2 * SHOWN_MAX):
        rig.tried(1, FINE, destination=f"http://other{n}:80")
    found = rig.it.figures(0.0)
    assert [one.destination for one in found.worst[:3]] == [
        "http://dead:80",
        "http://half:80",
        "http://slow:80",
    ]
    dead, half, slow, well = found.worst[:4]
    assert (dead.breaker, dead.limit, dead.open_for_s) == (BreakerState.OPEN, 20, 30.0)
    assert (half.breaker, half.limit, half.open_for_s) == (BreakerState.HALF_OPEN, 20, None)
    assert (slow.breaker, slow.limit, slow.slow) == (BreakerState.CLOSED, 20, 20)
    assert (well.limit, well.slow) == (None, 0)
    assert len(found.worst) == SHOWN_MAX
    assert (found.known, found.open, found.half_open, found.held, found.openings) == (
        44,
        1,
        1,
        3,
        2,
    )
    assert repr(rig.it) == "<Destinations 44 known, 0 attempts>"


# -- memory ------------------------------------------------------------------------------------


def test_the_memory_is_bounded_and_whoever_is_busy_or_in_trouble_is_forgotten_last() -> None:
    rig = Rig()
    rig.tried(10, FAILED, destination="http://dead:80")
    (busy,) = rig.start(1, "http://busy:80")
    rig.tried(1, FINE, destination="http://first:80")
    for n in range(KNOWN_MAX):
        rig.tried(1, FINE, destination=f"http://host{n}:80")
    assert len(rig.it) == KNOWN_MAX
    assert rig.admission(1.0, "http://dead:80") is SHUT
    assert rig.admission(1.0, "http://first:80") is ROOM  # unknown again
    assert rig.admission(1.0, "http://host9999:80") is FREE
    rig.it.ended(busy, 1.0, FINE)
    assert rig.admission(1.0, "http://busy:80") is FREE


def test_a_new_one_costs_no_look_at_all_that_are_in_trouble() -> None:
    """Else every new one would cost milliseconds once there are thousands of dead ones."""
    rig = Rig()
    rig.it = Destinations(CONFIG, -UP_S, known_max=LOOKED_AT_MAX + 2)
    for n in range(LOOKED_AT_MAX + 2):
        rig.tried(10, FAILED, destination=f"http://dead{n}:80")
    rig.tried(1, FINE, destination="http://new:80")
    assert rig.admission(1.0, "http://dead0:80") is SHUT  # looked at, and spared
    assert rig.admission(1.0, f"http://dead{LOOKED_AT_MAX}:80") is ROOM
    assert rig.admission(1.0, f"http://dead{LOOKED_AT_MAX + 1}:80") is SHUT


def test_if_all_are_busy_the_first_one_is_forgotten_all_the_same() -> None:
    rig = Rig()
    rig.it = Destinations(CONFIG, -UP_S, known_max=3)
    (seat,) = rig.start(1, "http://first:80")
    for n in range(3):
        rig.start(1, f"http://host{n}:80")
    assert len(rig.it) == 3
    rig.it.ended(seat, 0.0, FAILED)  # nobody knows of what any more
    assert rig.it.figures(0.0).known == 3
    assert "http://first:80" in rig.it.changed(0.0)  # whoever waits for it must look again
