"""The backlog's window against a plain store: nothing is lost, invented or served out of turn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engine.core.backlog import Backlog, Entry, Page, rank_of

START = datetime(2026, 1, 2, tzinfo=UTC)
SIZE = 6


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def entry(task_id: str, rank: int = 0, due_s: float = 0) -> Entry:
    return Entry(task_id, rank, at(due_s))


def page(*ready: Entry, scheduled: tuple[Entry, ...] = (), complete: bool = True) -> Page:
    return Page(ready, complete, scheduled, complete)


def filled(*ready: Entry, scheduled: tuple[Entry, ...] = (), complete: bool = True) -> Backlog:
    backlog = Backlog(SIZE)
    backlog.refill_started()
    backlog.refill(page(*ready, scheduled=scheduled, complete=complete), START)
    return backlog


def picked(backlog: Backlog, now: datetime = START) -> list[str]:
    found: list[str] = []
    while (task_id := backlog.pick(now)) is not None:
        found.append(task_id)
    return found


# -- rank --------------------------------------------------------------------------------------


def test_higher_priority_goes_first_then_the_older() -> None:
    urgent, old, young = rank_of(at(50), 1, 600), rank_of(at(0), 0, 600), rank_of(at(1), 0, 600)
    assert urgent < old < young


def test_waiting_long_enough_outweighs_a_level_of_priority() -> None:
    assert rank_of(at(0), 0, 600) < rank_of(at(601), 1, 600)
    assert rank_of(at(0), 0, 600) > rank_of(at(599), 1, 600)


@given(st.integers(0, 10**9), st.integers(-100, 100), st.integers(1, 10**6), st.integers(0, 10**6))
def test_rank_is_microseconds_and_fits_64_bits(
    due_s: int, priority: int, ageing_s: int, later_s: int
) -> None:
    rank = rank_of(at(due_s), priority, ageing_s)
    assert -(2**63) < rank < 2**63
    assert abs(rank_of(at(due_s + later_s), priority, ageing_s) - rank - later_s * 10**6) <= 1


# -- examples ----------------------------------------------------------------------------------


def test_a_new_backlog_knows_nothing_and_wants_the_store_read() -> None:
    backlog = Backlog(SIZE)
    assert backlog.wants_refill
    assert not backlog.drained
    assert backlog.pick(START) is None
    assert backlog.next_due() is None
    assert repr(backlog) == "<Backlog ready 0, scheduled 0, more in store>"


def test_a_backlog_that_has_read_an_empty_store_is_drained() -> None:
    backlog = filled()
    assert backlog.drained
    assert not backlog.wants_refill
    assert repr(backlog) == "<Backlog ready 0, scheduled 0>"


def test_picks_go_by_rank_then_id() -> None:
    backlog = filled(entry("b", 1), entry("a", 1), entry("c", 0))
    assert picked(backlog) == ["c", "a", "b"]
    assert backlog.drained


def test_a_scheduled_task_is_picked_when_it_is_due() -> None:
    backlog = filled(scheduled=(entry("a", due_s=10),))
    assert backlog.pick(at(9)) is None
    assert backlog.next_due() == at(10)
    assert backlog.drained  # nothing is ready
    assert backlog.pick(at(10)) == "a"
    assert backlog.next_due() is None


def test_an_offer_replaces_what_was_known_of_the_task() -> None:
    backlog = filled(entry("a", 5), entry("b", 3))
    backlog.offer(entry("a", 1), START)
    assert picked(backlog) == ["a", "b"]
    backlog.offer(entry("a", due_s=10), START)
    backlog.offer(entry("a", due_s=20), START)
    assert (len(backlog), backlog.next_due()) == (1, at(20))


def test_a_removed_task_is_not_picked() -> None:
    backlog = filled(entry("a"), entry("b"), scheduled=(entry("c", due_s=1),))
    for task_id in ("a", "c", "unknown"):
        backlog.remove(task_id)
    assert picked(backlog, at(5)) == ["b"]


def test_a_full_window_lets_go_of_its_last() -> None:
    backlog = filled(*(entry(str(n), n) for n in range(SIZE)))
    backlog.offer(entry("new", -1), START)
    assert picked(backlog) == ["new", "0", "1", "2", "3", "4"]
    assert not backlog.drained
    assert backlog.wants_refill


def test_an_offer_behind_a_window_that_is_not_complete_stays_in_the_store() -> None:
    backlog = filled(*(entry(str(n), n) for n in range(SIZE)), complete=False)
    backlog.offer(entry("late", 100), START)
    assert len(backlog) == SIZE


def test_who_leaves_during_a_refill_does_not_come_back_with_it() -> None:
    backlog = filled(entry("a"), entry("b"))
    backlog.refill_started()
    refilling = backlog.refilling
    backlog.remove("a")
    backlog.refill(page(entry("a"), entry("b")), START)
    assert (refilling, backlog.refilling) == (True, False)
    assert picked(backlog) == ["b"]


def test_who_comes_during_a_refill_is_kept() -> None:
    backlog = filled()
    backlog.refill_started()
    backlog.offer(entry("a", 2), START)
    backlog.offer(entry("b", 1), START)
    backlog.remove("b")
    backlog.remove("c")
    backlog.offer(entry("c", 3), START)
    backlog.refill(page(entry("a", 9)), START)
    assert picked(backlog) == ["a", "c"]


def test_a_failed_refill_changes_nothing_and_is_asked_for_again() -> None:
    backlog = filled(entry("a"))
    backlog.forget()
    backlog.refill_started()
    backlog.offer(entry("b"), START)
    backlog.refill_failed()
    assert backlog.wants_refill
    assert picked(backlog) == ["a", "b"]


def test_missed_announcements_are_made_up_for_by_reading_again() -> None:
    """However full the window is: what was missed may come before all of it."""
    later = tuple(entry(str(n), due_s=1000 + n) for n in range(SIZE))
    backlog = filled(*(entry(f"r{n}") for n in range(SIZE)), scheduled=later)
    backlog.forget()
    assert backlog.wants_refill
    assert not backlog.drained


def test_announcements_missed_during_a_refill_are_made_up_for_after_it() -> None:
    backlog = filled()
    backlog.forget()
    backlog.refill_started()
    backlog.forget()
    backlog.refill(page(), START)
    assert backlog.wants_refill
    assert not backlog.drained


def test_a_task_picked_in_vain_during_a_refill_is_read_again() -> None:
    """The page leaves it out, because it was picked; so the store has to be read once more."""
    backlog = filled(entry("a"))
    backlog.forget()
    backlog.refill_started()
    assert backlog.pick(START) == "a"
    backlog.forget()  # the claim could not be handed on
    backlog.refill(page(entry("a")), START)
    assert backlog.wants_refill


def test_what_lies_behind_the_scheduled_window_may_have_become_ready() -> None:
    backlog = Backlog(SIZE)
    backlog.refill_started()
    scheduled = tuple(entry(str(n), due_s=1) for n in range(SIZE))
    backlog.refill(Page((), True, scheduled, False), START)
    assert len(picked(backlog, at(1))) == SIZE
    assert not backlog.drained  # a seventh may have been due at the same time


# -- against a model ---------------------------------------------------------------------------


@attrs.define
class Reading:
    """A refill under way, and whether anything was missed since it began."""

    page: Page | None = None
    exact: bool = True


class BacklogMachine(RuleBasedStateMachine):
    """``store`` is the truth. Announcements reach the backlog at once, unless they are missed."""

    @initialize()
    def begin(self) -> None:
        self.backlog = Backlog(SIZE)
        self.store: dict[str, Entry] = {}
        self.taken: list[str] = []
        self.now = 0.0
        self.number = 0
        self.reading: Reading | None = None
        self.exact = False  # whether the window knows of every change

    def change(self, task_id: str, new: Entry | None, announced: bool) -> None:
        if new is None:
            self.store.pop(task_id)
        else:
            self.store[task_id] = new
        if not announced:
            self.miss()
        elif new is None:
            self.backlog.remove(task_id)
        else:
            self.backlog.offer(new, at(self.now))

    def miss(self) -> None:
        self.backlog.forget()
        self.exact = False
        if self.reading is not None:
            self.reading.exact = False

    arrives = st.sampled_from([True, True, True, False])
    delays = st.sampled_from([-3.0, 0.0, 0.0, 0.0, 1.0, 2.0, 5.0, 50.0])

    @rule(
        rank=st.integers(0, 5),
        delay=delays,
        announced=arrives,
        copies=st.sampled_from([1, 1, 1, 2, 8]),
    )
    def create(self, rank: int, delay: float, announced: bool, copies: int) -> None:
        for _ in range(copies):
            self.number += 1
            task_id = f"{self.number:04}"
            self.change(task_id, Entry(task_id, rank, at(self.now + delay)), announced)

    @precondition(lambda self: self.store)
    @rule(data=st.data(), announced=arrives)
    def cancel(self, data: st.DataObject, announced: bool) -> None:
        self.change(data.draw(st.sampled_from(sorted(self.store))), None, announced)

    @precondition(lambda self: self.store)
    @rule(data=st.data(), rank=st.integers(0, 5), delay=delays, announced=arrives)
    def update(self, data: st.DataObject, rank: int, delay: float, announced: bool) -> None:
        task_id = data.draw(st.sampled_from(sorted(self.store)))
        self.change(task_id, Entry(task_id, rank, at(self.now + delay)), announced)

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), delay=delays, announced=arrives)
    def return_to_wait(self, data: st.DataObject, delay: float, announced: bool) -> None:
        task_id = data.draw(st.sampled_from(self.taken))
        self.taken.remove(task_id)
        self.change(task_id, Entry(task_id, 0, at(self.now + delay)), announced)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(times=st.integers(1, SIZE), claimed=arrives)
    def pick_some(self, times: int, claimed: bool) -> None:
        for _ in range(times):
            self.pick(claimed)

    def pick(self, claimed: bool) -> None:
        ready = self.ready()
        task_id = self.backlog.pick(at(self.now))
        if self.exact:
            assert task_id is None or task_id in ready
            if not self.backlog.wants_refill and not self.backlog.refilling:
                assert task_id == (ready[0] if ready else None)
                dues = [e.due_at for e in self.store.values() if e.due_at > at(self.now)]
                assert self.backlog.next_due() == min(dues, default=None)
        if task_id is None:
            assert not ready or not self.backlog.drained
        elif claimed and task_id in ready:
            self.change(task_id, None, announced=True)
            self.taken.append(task_id)
        elif task_id in self.store:
            self.miss()  # the claim did not come about: the task waits on, out of the window

    @precondition(lambda self: self.backlog.wants_refill)
    @rule(steps=st.integers(1, 3))
    def start_refill(self, steps: int) -> None:
        """Up to three steps at once, as without interruption; the rest come with others between."""
        self.backlog.refill_started()
        self.reading = Reading()
        if steps > 1:
            self.store_is_read()
        if steps > 2:
            self.end_refill()

    @precondition(lambda self: self.reading is not None and self.reading.page is None)
    @rule()
    def store_is_read(self) -> None:
        assert self.reading is not None
        self.reading.page = self.read()

    @precondition(lambda self: self.reading is not None and self.reading.page is not None)
    @rule()
    def end_refill(self) -> None:
        assert self.reading is not None
        assert self.reading.page is not None
        self.backlog.refill(self.reading.page, at(self.now))
        self.exact, self.reading = self.reading.exact, None

    @precondition(lambda self: self.reading is not None)
    @rule()
    def fail_refill(self) -> None:
        self.backlog.refill_failed()
        self.reading = None

    @invariant()
    def is_bounded(self) -> None:
        assert len(self.backlog) <= 2 * SIZE

    def ready(self) -> list[str]:
        due = [e for e in self.store.values() if e.due_at <= at(self.now)]
        return [e.task_id for e in sorted(due, key=lambda e: (e.rank, e.task_id))]

    def read(self) -> Page:
        ready = [self.store[task_id] for task_id in self.ready()]
        later = [e for e in self.store.values() if e.due_at > at(self.now)]
        later.sort(key=lambda e: (e.due_at, e.rank, e.task_id))
        return Page(
            tuple(ready[:SIZE]), len(ready) <= SIZE, tuple(later[:SIZE]), len(later) <= SIZE
        )

    def teardown(self) -> None:
        """From here on nothing is missed: every task that waits must be picked in the end."""
        self.now += 1000
        if self.reading is not None:
            self.reading.page = self.reading.page or self.read()
            self.end_refill()
        for _ in range(10 * len(self.store) + 10):
            if self.backlog.wants_refill:
                self.start_refill(steps=3)
            self.pick(claimed=True)
        assert self.store == {}
        assert self.backlog.drained


@pytest.mark.slow
def test_the_backlog_against_a_model() -> None:
    run_state_machine_as_test(
        BacklogMachine, settings=settings(max_examples=200, stateful_step_count=50, deadline=None)
    )
