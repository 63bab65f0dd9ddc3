"""When requests are refused, by virtual time; and the short form of ``python -m tests.attack
overload``."""

from __future__ import annotations

import pytest

from tests.attack.overload import overload
from web.overload import BADLY_S, FEWEST, SOON_S, WELL_S, Overload


class Server:
    """Does so many requests a second, one after the other; refuses when it is told to."""

    def __init__(self, a_second: float) -> None:
        self.overload = Overload()
        self.step_s = 1 / a_second
        self.now = 100.0
        self.waiting: list[float] = []
        self.took: list[tuple[float, float]] = []  # when, how long

    def offer(self, a_second: float, seconds: float) -> int:
        """Offer so many a second; how many were refused."""
        refused, ends_at, due = 0, self.now + seconds, self.now
        while self.now < ends_at:
            while due <= self.now:
                due += 1 / a_second
                if self.overload.refuses(self.now):
                    refused += 1
                else:
                    self.overload.begin()
                    self.waiting.append(self.now)
            self.now += self.step_s
            if self.waiting:
                began = self.waiting.pop(0)
                self.overload.end(began, self.now)
                self.took.append((self.now, self.now - began))
        return refused


def test_what_can_be_done_is_never_refused() -> None:
    server = Server(1000)
    assert server.offer(900, 20.0) == 0
    assert max(took for _, took in server.took) < SOON_S


def test_a_burst_is_worked_off() -> None:
    server = Server(1000)
    for _ in range(5):
        assert server.offer(40_000, 0.01) == 0  # 400 at once
        assert server.offer(1, 2.0) == 0


def test_three_times_as_much_is_refused_but_for_what_can_be_done_soon() -> None:
    server = Server(1000)
    refused = server.offer(3000, 30.0)
    assert len(server.took) > 29_000  # it is never without work
    assert 57_000 < refused < 61_000
    late = [took for at, took in server.took if at > 104 and took > 2 * SOON_S]
    assert late == []


def test_when_it_is_over_nothing_is_refused_any_more() -> None:
    server = Server(1000)
    assert server.offer(3000, 5.0) > 0
    server.offer(500, WELL_S + 0.5)
    assert server.offer(900, 20.0) == 0
    assert server.offer(40_000, 0.01) == 0


def test_one_that_takes_long_by_itself_is_no_overload() -> None:
    overload_, now = Overload(), 5.0
    for _ in range(FEWEST):
        assert not overload_.refuses(now)
        overload_.begin()
        now += BADLY_S
    assert overload_.refuses(now)  # so many of them are


def test_a_slow_machine_takes_no_fewer_than_a_disk_can_write_at_once() -> None:
    server = Server(100)
    server.offer(1000, 30.0)
    late = [took for at, took in server.took if at > 120]
    assert max(late) == pytest.approx(FEWEST / 100, abs=0.05)


@pytest.mark.proof
@pytest.mark.timeout(400)
async def test_three_times_what_it_can_do_loses_nothing_and_is_refused_with_retry_after() -> None:
    done = await overload(6.0)
    assert done.broken() == []
    assert done.probed.accepted() > 0
    assert done.recovered_s < 20.0
