"""The backlog's window against a plain store: nothing is lost, invented or served out of turn,
whichever destinations are held back meanwhile."""

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

from engine.core.backlog import ASIDE_MAX, SIDES_READ_MAX, Admit, Backlog
from engine.core.destinations import Admission, OthersWait
from engine.core.entries import Entry, Page, Reading, Side, Wanted, entry_of, rank_of
from engine.core.suspects import LINES, PRIME_SUSPECTS, SUSPECTS
from tests.support.builders import a_task

START = datetime(2026, 1, 2, tzinfo=UTC)
SIZE = 6
SIDE_SIZE = 3


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def entry(task_id: str, rank: int = 0, due_s: float = 0, to: str = "a") -> Entry:
    return Entry(task_id, rank, at(due_s), to)


def page(*ready: Entry, scheduled: tuple[Entry, ...] = (), complete: bool = True) -> Page:
    return Page(ready, complete, scheduled, complete)


def filled(*ready: Entry, scheduled: tuple[Entry, ...] = (), complete: bool = True) -> Backlog:
    backlog = Backlog(SIZE, SIDE_SIZE)
    started(backlog)
    read(backlog, page(*ready, scheduled=scheduled, complete=complete))
    return backlog


def endless(*ready: Entry) -> Backlog:
    """There are more ready ones in the store."""
    backlog = Backlog(SIZE, SIDE_SIZE)
    started(backlog)
    read(backlog, Page(ready, False, (), True))
    return backlog


def started(backlog: Backlog) -> Wanted:
    """A refill begins that reads the page at least."""
    wanted = backlog.wanted(page=True)
    assert wanted is not None
    backlog.refill_started(wanted)
    return wanted


def read(backlog: Backlog, page: Page | None, *sides: Side, now: datetime = START) -> None:
    backlog.refill(Reading(page, sides), now)


def wants(backlog: Backlog) -> bool:
    return backlog.wanted() is not None


def drained(backlog: Backlog) -> bool:
    return backlog.drained  # as a function: a type checker believes that properties stay


def next_id(backlog: Backlog, now: datetime = START, admit: Admit | None = None) -> str | None:
    found = backlog.pick(now, admit)
    return None if found is None else found.task_id


def picked(backlog: Backlog, now: datetime = START, admit: Admit | None = None) -> list[str]:
    found: list[str] = []
    while (task_id := next_id(backlog, now, admit)) is not None:
        found.append(task_id)
    return found


def admitting(**admissions: Admission) -> Admit:
    """Destinations are free unless it is said otherwise."""
    return lambda destination, _: admissions.get(destination, Admission.FREE)


FULL_A = admitting(a=Admission.FULL)
ROOM_A = admitting(a=Admission.ROOM)


# -- rank --------------------------------------------------------------------------------------


def test_higher_priority_goes_first_then_the_older() -> None:
    urgent, old, young = rank_of(at(50), 1, 600), rank_of(at(0), 0, 600), rank_of(at(1), 0, 600)
    assert urgent < old < young


def test_an_entry_knows_where_its_task_goes() -> None:
    task = a_task(7, callback_url="https://example.com/hook", due_at=at(5))
    assert entry_of(task) == Entry(task.id, task.rank, at(5), "https://example.com:443")


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
    assert wants(backlog)
    assert not backlog.drained
    assert next_id(backlog) is None
    assert backlog.next_due() is None
    assert repr(backlog) == "<Backlog ready 0, scheduled 0, more in store>"


def test_a_backlog_that_has_read_an_empty_store_is_drained() -> None:
    backlog = filled()
    assert backlog.drained
    assert not wants(backlog)
    assert repr(backlog) == "<Backlog ready 0, scheduled 0>"


def test_picks_go_by_rank_then_id() -> None:
    backlog = filled(entry("b", 1), entry("a", 1), entry("c", 0))
    assert picked(backlog) == ["c", "a", "b"]
    assert backlog.drained


def test_a_scheduled_task_is_picked_when_it_is_due() -> None:
    backlog = filled(scheduled=(entry("a", due_s=10),))
    assert next_id(backlog, at(9)) is None
    assert backlog.next_due() == at(10)
    assert backlog.drained  # nothing is ready
    assert next_id(backlog, at(10)) == "a"
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
    assert wants(backlog)


def test_an_offer_behind_a_window_that_is_not_complete_stays_in_the_store() -> None:
    backlog = filled(*(entry(str(n), n) for n in range(SIZE)), complete=False)
    backlog.offer(entry("late", 100), START)
    assert len(backlog) == SIZE


def test_who_leaves_during_a_refill_does_not_come_back_with_it() -> None:
    backlog = filled(entry("a"), entry("b"))
    started(backlog)
    assert backlog.wanted(page=True) is None  # one at a time
    backlog.remove("a")
    read(backlog, page(entry("a"), entry("b")))
    assert picked(backlog) == ["b"]


def test_who_comes_during_a_refill_is_kept() -> None:
    backlog = filled()
    started(backlog)
    backlog.offer(entry("a", 2), START)
    backlog.offer(entry("b", 1), START)
    backlog.remove("b")
    backlog.remove("c")
    backlog.offer(entry("c", 3), START)
    read(backlog, page(entry("a", 9)))
    assert picked(backlog) == ["a", "c"]


def test_a_failed_refill_changes_nothing_and_is_asked_for_again() -> None:
    backlog = filled(entry("a"))
    backlog.forget()
    started(backlog)
    backlog.offer(entry("b"), START)
    backlog.refill_failed()
    assert wants(backlog)
    assert picked(backlog) == ["a", "b"]


def test_missed_announcements_are_made_up_for_by_reading_again() -> None:
    """However full the window is: what was missed may come before all of it."""
    later = tuple(entry(str(n), due_s=1000 + n) for n in range(SIZE))
    backlog = filled(*(entry(f"r{n}") for n in range(SIZE)), scheduled=later)
    backlog.forget()
    assert wants(backlog)
    assert not backlog.drained


def test_announcements_missed_during_a_refill_are_made_up_for_after_it() -> None:
    backlog = filled()
    backlog.forget()
    started(backlog)
    backlog.forget()
    read(backlog, page())
    assert wants(backlog)
    assert not backlog.drained


def test_a_task_picked_in_vain_during_a_refill_is_read_again() -> None:
    """The page leaves it out, because it was picked; so the store has to be read once more."""
    backlog = filled(entry("a"))
    backlog.forget()
    started(backlog)
    assert next_id(backlog) == "a"
    backlog.forget()  # the claim could not be handed on
    read(backlog, page(entry("a")))
    assert wants(backlog)


def test_what_lies_behind_the_scheduled_window_may_have_become_ready() -> None:
    backlog = Backlog(SIZE)
    started(backlog)
    scheduled = tuple(entry(str(n), due_s=1) for n in range(SIZE))
    read(backlog, Page((), True, scheduled, False))
    assert len(picked(backlog, at(1))) == SIZE
    assert not backlog.drained  # a seventh may have been due at the same time


# -- setting destinations aside ----------------------------------------------------------------


def test_what_may_not_be_given_out_is_passed_over_and_keeps_its_place() -> None:
    backlog = filled(entry("1"), entry("2", to="b"), entry("3"), entry("4", to="b"))
    assert picked(backlog, admit=FULL_A) == ["2", "4"]
    assert backlog.holds_back
    assert backlog.drained
    assert repr(backlog) == "<Backlog ready 0, scheduled 0, 1 destinations aside>"
    backlog.offer(entry("0"), START)
    backlog.offer(entry("5", to="b"), START)
    assert picked(backlog, admit=FULL_A) == ["5"]
    assert picked(backlog, admit=ROOM_A) == ["0", "1", "3"]
    assert backlog.drained


def test_priority_rules_among_all_that_may_be_given_out() -> None:
    backlog = filled(entry("a1", 1), entry("b2", 2, to="b"), entry("a3", 3), entry("b4", 4, to="b"))
    assert next_id(backlog, admit=FULL_A) == "b2"
    assert picked(backlog, admit=ROOM_A) == ["a1", "a3", "b4"]
    backlog = filled(entry("a1", 1), entry("b2", 2, to="b"), entry("a3", 3), entry("b4", 4, to="b"))
    assert next_id(backlog, admit=FULL_A) == "b2"
    assert picked(backlog) == ["b4"]  # whoever does not ask for destinations gets what is not aside


def test_several_that_are_aside_are_served_in_their_common_order() -> None:
    of_b = (entry("1", to="b"), entry("4", to="b"))
    backlog = filled(entry("0"), *of_b, entry("2"), entry("3"))
    nobody = admitting(a=Admission.FULL, b=Admission.FULL)
    assert picked(backlog, admit=nobody) == []
    everybody = admitting(a=Admission.ROOM, b=Admission.ROOM)
    assert picked(backlog, admit=everybody) == ["0", "1", "2", "3", "4"]


def test_an_inexhaustible_dead_destination_hides_nobody() -> None:
    backlog = endless(*(entry(str(n), n) for n in range(SIZE)))
    assert picked(backlog, admit=FULL_A) == []
    wanted = started(backlog)
    assert wanted == Wanted(page=True, without=("a",), sides=())
    read(backlog, page(entry("good", 100, to="b")))
    assert picked(backlog, admit=FULL_A) == ["good"]
    assert not wants(backlog)


def test_a_side_is_small_and_is_filled_again_by_itself() -> None:
    backlog = endless(*(entry(str(n), n) for n in range(SIZE)))
    assert picked(backlog, admit=FULL_A) == []
    started(backlog)
    read(backlog, page())
    assert len(backlog) == SIDE_SIZE
    assert picked(backlog, admit=ROOM_A) == ["0", "1", "2"]
    wanted = backlog.wanted()
    assert wanted == Wanted(page=False, without=(), sides=("a",))
    backlog.refill_started(wanted)
    backlog.remove("4")
    backlog.offer(entry("new", 4), START)  # comes back in its place although it was not read
    read(backlog, None, Side("a", (entry("3", 3), entry("4", 4), entry("5", 5)), complete=False))
    assert picked(backlog, admit=ROOM_A) == ["3", "new", "5"]


def test_a_side_of_which_nothing_could_be_shown_yet_is_read_again() -> None:
    """The store makes only so many tasks ready at once."""
    backlog = endless(entry("0"))
    assert picked(backlog, admit=FULL_A) == []
    backlog.forget()
    assert started(backlog).sides == ("a",)
    read(backlog, page(), Side("a", (), complete=False))
    assert backlog.wanted() == Wanted(page=False, sides=("a",))


def test_a_task_that_becomes_due_while_its_side_is_read_is_not_lost() -> None:
    """When the store was read it was not ready yet."""
    backlog = Backlog(SIZE, SIDE_SIZE)
    started(backlog)
    read(backlog, Page((entry("0"),), False, (entry("due", 9, due_s=1),), True))
    assert picked(backlog, admit=FULL_A) == []
    started(backlog)
    read(backlog, page(scheduled=(entry("due", 9, due_s=1),)))
    assert picked(backlog, admit=ROOM_A) == ["0"]
    wanted = backlog.wanted()
    assert wanted == Wanted(page=False, sides=("a",))
    backlog.refill_started(wanted)
    read(backlog, None, Side("a", (), complete=True), now=at(1))
    assert picked(backlog, at(1), ROOM_A) == ["due"]


def test_what_the_store_made_ready_while_the_page_was_read_is_not_lost_aside() -> None:
    backlog = filled(entry("0"), scheduled=(entry("due", 9, due_s=1),))
    assert picked(backlog, admit=FULL_A) == []
    assert started(backlog) == Wanted(page=True, without=("a",))
    read(backlog, page(), now=at(1))
    assert picked(backlog, at(1), ROOM_A) == ["0", "due"]


def test_when_the_clock_is_set_back_all_is_read_again() -> None:
    """What became due here may have been let go: in the store it is not ready, so that its side,
    read again, does not show it."""
    mine = [entry(str(n), n, due_s=1) for n in range(SIDE_SIZE + 1)]
    backlog = filled(entry("now", -1), scheduled=tuple(mine))
    assert picked(backlog, admit=FULL_A) == []
    assert picked(backlog, at(1), FULL_A) == []  # all are due, and one too many for the side
    wanted = backlog.wanted()
    assert wanted is None or not wanted.page
    assert next_id(backlog, START, ROOM_A) == "now"
    wanted = backlog.wanted()
    assert wanted == Wanted(page=True, without=("a",), sides=("a",))
    backlog.refill_started(wanted)
    read(backlog, page(scheduled=tuple(mine)), Side("a", (), complete=True))
    assert picked(backlog, START, ROOM_A) == []
    assert picked(backlog, at(1), ROOM_A) == ["0", "1", "2", "3"]


def test_suspects_are_no_others_that_wait() -> None:
    """They wait for each other: nobody has to be held back for them."""
    backlog = filled(entry("1", to=SUSPECTS), entry("2", to=PRIME_SUSPECTS), entry("3"))
    assert not backlog.others_wait("a")
    assert backlog.others_wait("b")
    shut = admitting(**dict.fromkeys(LINES, Admission.SHUT))
    assert next_id(backlog, admit=shut) == "3"
    assert not backlog.others_wait("b")


def test_suspects_are_set_aside_however_many_are() -> None:
    hosts = [entry(f"{n}", n, to=f"host {n}") for n in range(ASIDE_MAX)]
    backlog = Backlog(2 * ASIDE_MAX, SIDE_SIZE)
    started(backlog)
    one_more = entry("z", 2 * ASIDE_MAX, to="z")
    read(backlog, page(*hosts, entry("suspect", ASIDE_MAX, to=SUSPECTS), one_more))
    nobody: Admit = lambda *_: Admission.SHUT  # noqa: E731
    assert next_id(backlog, admit=nobody) == "z"
    assert picked(backlog, admit=nobody) == []


def test_who_is_well_again_comes_back_to_the_others() -> None:
    backlog = filled(entry("1"), entry("2", to="b"), entry("3"))
    assert next_id(backlog, admit=FULL_A) == "2"
    assert picked(backlog, admit=admitting()) == ["1", "3"]
    assert repr(backlog) == "<Backlog ready 0, scheduled 0>"


def test_who_comes_back_brings_only_what_is_known_without_a_gap() -> None:
    """Behind the last task of its side the store may hold more of its tasks."""
    mine = [entry(str(n), n) for n in range(4)]
    backlog = filled(*mine, entry("8", 8, to="b"), complete=True)
    assert next_id(backlog, admit=FULL_A) == "8"  # its side has let go of the fourth
    backlog.offer(entry("9", 9, to="b"), START)
    assert picked(backlog, admit=admitting()) == ["0", "1", "2"]  # not "9", before "3"
    assert wants(backlog)


def test_nobody_comes_back_while_the_store_is_read() -> None:
    backlog = filled(entry("1"), entry("2", to="b"))
    assert next_id(backlog, admit=FULL_A) == "2"
    wanted = started(backlog)
    assert wanted.without == ("a",)
    assert picked(backlog, admit=admitting()) == ["1"]
    backlog.offer(entry("3"), START)
    read(backlog, page())  # this page knows nothing of "a"
    assert picked(backlog, admit=admitting()) == ["3"]


def test_who_is_set_aside_while_the_store_is_read_finds_its_tasks_in_the_page() -> None:
    backlog = endless(entry("1"))
    started(backlog)
    assert picked(backlog, admit=FULL_A) == []
    backlog.remove("1")
    read(backlog, Page((entry("1"), entry("2"), entry("3", to="b")), False, (), True))
    assert picked(backlog, admit=FULL_A) == ["3"]
    assert picked(backlog, admit=ROOM_A) == ["2"]
    assert started(backlog).sides == ("a",)  # there may be more of them than the page held


def test_missed_announcements_are_made_up_for_aside_as_well() -> None:
    backlog = filled(entry("1"), entry("2", to="b"))
    assert picked(backlog, admit=FULL_A) == ["2"]
    assert drained(backlog)
    backlog.forget()
    assert not drained(backlog)
    wanted = started(backlog)
    assert (wanted.page, wanted.sides) == (True, ("a",))
    backlog.refill_failed()
    assert started(backlog) == wanted
    read(backlog, page(), Side("a", (entry("0"), entry("1")), complete=True))
    assert picked(backlog, admit=ROOM_A) == ["0", "1"]


def test_who_is_set_aside_while_announcements_are_missing_is_read() -> None:
    backlog = filled(entry("1"))
    backlog.forget()
    assert picked(backlog, admit=FULL_A) == []
    assert started(backlog).sides == ("a",)


def test_what_the_store_made_ready_unknown_to_us_is_looked_for_aside_as_well() -> None:
    """Behind a window of scheduled tasks that have all become due there may be more of them."""
    scheduled = tuple(entry(f"s{n}", due_s=1, to="b") for n in range(SIZE))
    backlog = filled(entry("1"), scheduled=scheduled, complete=True)
    backlog.offer(entry("later", 5, due_s=1), START)  # does not fit
    assert picked(backlog, admit=FULL_A) == []
    assert len(picked(backlog, at(1), FULL_A)) == SIZE
    wanted = started(backlog)
    assert wanted.sides == ()
    read(backlog, page(), now=at(1))
    wanted = started(backlog)
    assert wanted.sides == ("a",)
    read(backlog, page(), Side("a", (entry("1"), entry("later", 5, due_s=1)), complete=True))
    assert picked(backlog, at(1), ROOM_A) == ["1", "later"]


def test_it_is_not_drained_while_it_may_not_know_what_comes_first_aside() -> None:
    backlog = filled(entry("1"), *(entry(f"b{n}", to="b") for n in range(SIDE_SIZE)))
    assert len(picked(backlog, admit=FULL_A)) == SIDE_SIZE
    more = Side("a", (entry("1"),), complete=False)
    started(backlog)
    read(backlog, page(), more)
    assert drained(backlog)  # there are more of them behind one that waits
    assert picked(backlog, admit=ROOM_A) == ["1"]
    assert not drained(backlog)
    wanted = backlog.wanted()
    assert wanted == Wanted(page=False, sides=("a",))
    backlog.refill_started(wanted)
    assert not drained(backlog)
    read(backlog, None, more)
    assert picked(backlog, admit=admitting(a=Admission.SHUT)) == []
    assert drained(backlog)  # whatever there is, it may not be given out


def test_who_is_shut_is_asked_for_again_only_when_something_has_changed() -> None:
    asked: list[str] = []

    def admit(destination: str, _others_wait: OthersWait) -> Admission:
        asked.append(destination)
        return Admission.SHUT if destination == "a" else Admission.FREE

    backlog = filled(entry("1"), *(entry(f"b{n}", to="b") for n in range(5)))
    assert len(picked(backlog, admit=admit)) == 5
    assert asked.count("a") == 2  # in the main window, and once aside
    backlog.wake(["a", "stranger"])
    assert picked(backlog, admit=ROOM_A) == ["1"]


def test_an_empty_side_is_given_up_as_soon_as_it_may_be_given_something() -> None:
    backlog = filled(entry("1"), entry("2", to="b"))
    assert next_id(backlog, admit=FULL_A) == "2"
    backlog.remove("1")
    assert picked(backlog, admit=FULL_A) == []
    assert "aside" in repr(backlog)
    assert picked(backlog, admit=ROOM_A) == []
    assert repr(backlog) == "<Backlog ready 0, scheduled 0>"


def test_a_reading_of_somebody_who_is_no_longer_aside_is_left_alone() -> None:
    backlog = filled(entry("1"))
    read(backlog, None, Side("stranger", (entry("x", to="stranger"),), complete=True))
    assert picked(backlog) == ["1"]


@pytest.mark.parametrize("to", ["a", "b"])
def test_it_knows_whether_others_wait(to: str) -> None:
    backlog = filled(entry("1"), entry("2", to=to))
    assert backlog.others_wait("a") is (to == "b")
    assert picked(backlog, admit=admitting(a=Admission.FULL, b=Admission.FULL)) == []
    assert backlog.others_wait("a") is (to == "b")


def test_others_may_wait_aside_where_it_does_not_know() -> None:
    """All that is known of them has been picked; there may be more in the store."""
    backlog = filled(entry("1"), entry("2", to="b"))
    assert next_id(backlog, admit=FULL_A) == "2"
    started(backlog)
    read(backlog, page(entry("3", to="b")), Side("a", (entry("1"),), complete=False))
    assert next_id(backlog, admit=ROOM_A) == "1"
    assert backlog.others_wait("b")


def test_others_may_wait_where_it_does_not_know() -> None:
    assert not filled(entry("1")).others_wait("a")
    assert endless(entry("1")).others_wait("a")
    backlog = filled(entry("1"))
    backlog.forget()
    assert backlog.others_wait("a")


def test_with_too_many_destinations_aside_nobody_is_held_back_any_more() -> None:
    """Else those that cannot be set aside would hide the others."""
    backlog = Backlog(2 * ASIDE_MAX, SIDE_SIZE)
    started(backlog)
    read(backlog, page(*(entry(f"{n:05}", n, to=f"host {n}") for n in range(ASIDE_MAX + 2))))

    def admit(_destination: str, _others_wait: OthersWait) -> Admission:
        return Admission.FULL

    assert picked(backlog, admit=admit) == [f"{n:05}" for n in (ASIDE_MAX, ASIDE_MAX + 1)]
    backlog.forget()
    assert len(started(backlog).sides) == SIDES_READ_MAX


# -- against a model ---------------------------------------------------------------------------


DESTINATIONS = "abc"


def test_what_was_set_aside_during_a_reading_that_failed_is_read_again() -> None:
    backlog = filled(entry("1"))
    backlog.forget()  # another one came, of which nobody told; the page would show it
    started(backlog)
    assert next_id(backlog, admit=lambda *_: Admission.FULL) is None  # so "a" is set aside
    backlog.refill_failed()
    assert "a" in started(backlog).sides


@attrs.define
class Refilling:
    """A refill under way, and whether anything was missed since it began."""

    wanted: Wanted
    reading: Reading | None = None
    exact: bool = True


class BacklogMachine(RuleBasedStateMachine):
    """``store`` is the truth. Announcements reach the backlog at once, unless they are missed."""

    @initialize()
    def begin(self) -> None:
        self.backlog = Backlog(SIZE, SIDE_SIZE)
        self.store: dict[str, Entry] = {}
        self.taken: list[str] = []
        self.now = 0.0
        self.number = 0
        self.reading: Refilling | None = None
        self.admissions = dict.fromkeys(DESTINATIONS, Admission.FREE)
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
    destinations = st.sampled_from(DESTINATIONS)
    delays = st.sampled_from([-3.0, 0.0, 0.0, 0.0, 1.0, 2.0, 5.0, 50.0])

    @rule(
        rank=st.integers(0, 5),
        delay=delays,
        announced=arrives,
        copies=st.sampled_from([1, 1, 1, 2, 8]),
        to=destinations,
    )
    def create(self, rank: int, delay: float, announced: bool, copies: int, to: str) -> None:
        for _ in range(copies):
            self.number += 1
            task_id = f"{self.number:04}"
            self.change(task_id, Entry(task_id, rank, at(self.now + delay), to), announced)

    @rule(destination=destinations, admission=st.sampled_from(Admission))
    def judge(self, destination: str, admission: Admission) -> None:
        self.admissions[destination] = admission
        self.backlog.wake([destination])

    def admit(self, destination: str, others_wait: OthersWait) -> Admission:
        if self.exact and not others_wait(destination):
            assert not any(
                entry.destination != destination and entry.task_id in self.ready()
                for entry in self.store.values()
            )
        return self.admissions[destination]

    @precondition(lambda self: self.store)
    @rule(data=st.data(), announced=arrives)
    def cancel(self, data: st.DataObject, announced: bool) -> None:
        self.change(data.draw(st.sampled_from(sorted(self.store))), None, announced)

    @precondition(lambda self: self.store)
    @rule(data=st.data(), rank=st.integers(0, 5), delay=delays, announced=arrives, to=destinations)
    def update(
        self, data: st.DataObject, rank: int, delay: float, announced: bool, to: str
    ) -> None:
        task_id = data.draw(st.sampled_from(sorted(self.store)))
        self.change(task_id, Entry(task_id, rank, at(self.now + delay), to), announced)

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), delay=delays, announced=arrives, to=destinations)
    def return_to_wait(self, data: st.DataObject, delay: float, announced: bool, to: str) -> None:
        task_id = data.draw(st.sampled_from(self.taken))
        self.taken.remove(task_id)
        self.change(task_id, Entry(task_id, 0, at(self.now + delay), to), announced)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(times=st.integers(1, SIZE), claimed=arrives)
    def pick_some(self, times: int, claimed: bool) -> None:
        for _ in range(times):
            self.pick(claimed)

    def pick(self, claimed: bool) -> None:
        ready = self.ready()
        admitted = [i for i in ready if self.admission_of(i) in (Admission.FREE, Admission.ROOM)]
        task_id = next_id(self.backlog, at(self.now), self.admit)
        if self.exact:
            assert task_id is None or task_id in admitted
            if not wants(self.backlog) and self.reading is None:
                assert task_id == (admitted[0] if admitted else None)
                dues = [e.due_at for e in self.store.values() if e.due_at > at(self.now)]
                assert self.backlog.next_due() == min(dues, default=None)
        if task_id is None:
            assert not admitted or not self.backlog.drained
        elif claimed and task_id in ready:
            self.change(task_id, None, announced=True)
            self.taken.append(task_id)
        elif task_id in self.store:
            self.miss()  # the claim did not come about: the task waits on, out of the window

    def admission_of(self, task_id: str) -> Admission:
        return self.admissions[self.store[task_id].destination]

    @precondition(lambda self: wants(self.backlog))
    @rule(steps=st.integers(1, 3))
    def start_refill(self, steps: int) -> None:
        """Up to three steps at once, as without interruption; the rest come with others between."""
        wanted = self.backlog.wanted()
        assert wanted is not None
        self.backlog.refill_started(wanted)
        self.reading = Refilling(wanted)
        if steps > 1:
            self.store_is_read()
        if steps > 2:
            self.end_refill()

    @precondition(lambda self: self.reading is not None and self.reading.reading is None)
    @rule()
    def store_is_read(self) -> None:
        assert self.reading is not None
        self.reading.reading = self.read(self.reading.wanted)

    @precondition(lambda self: self.reading is not None and self.reading.reading is not None)
    @rule()
    def end_refill(self) -> None:
        assert self.reading is not None
        assert self.reading.reading is not None
        self.backlog.refill(self.reading.reading, at(self.now))
        self.exact, self.reading = self.reading.exact, None

    @precondition(lambda self: self.reading is not None)
    @rule()
    def fail_refill(self) -> None:
        self.backlog.refill_failed()
        self.reading = None

    @invariant()
    def is_bounded(self) -> None:
        assert len(self.backlog) <= 2 * SIZE + len(DESTINATIONS) * SIDE_SIZE

    def ready(self) -> list[str]:
        due = [e for e in self.store.values() if e.due_at <= at(self.now)]
        return [e.task_id for e in sorted(due, key=lambda e: (e.rank, e.task_id))]

    def read(self, wanted: Wanted) -> Reading:
        ready = [self.store[task_id] for task_id in self.ready()]
        later = [e for e in self.store.values() if e.due_at > at(self.now)]
        later.sort(key=lambda e: (e.due_at, e.rank, e.task_id))
        sides = [
            Side(one, tuple(mine[:SIDE_SIZE]), len(mine) <= SIDE_SIZE)
            for one in wanted.sides
            for mine in [[e for e in ready if e.destination == one]]
        ]
        page: Page | None = None
        if wanted.page:
            ready = [e for e in ready if e.destination not in wanted.without]
            page = Page(
                tuple(ready[:SIZE]), len(ready) <= SIZE, tuple(later[:SIZE]), len(later) <= SIZE
            )
        return Reading(page, tuple(sides))

    def teardown(self) -> None:
        """From here on nothing is missed: every task that waits must be picked in the end."""
        self.now += 1000
        for destination in DESTINATIONS:
            if self.admissions[destination] is not Admission.FREE:
                self.judge(destination, Admission.ROOM)
        if self.reading is not None:
            self.reading.reading = self.reading.reading or self.read(self.reading.wanted)
            self.end_refill()
        for _ in range(10 * len(self.store) + 10):
            if wants(self.backlog):
                self.start_refill(steps=3)
            self.pick(claimed=True)
        assert self.store == {}
        assert self.backlog.drained
        assert not self.backlog.holds_back


@pytest.mark.slow
def test_the_backlog_against_a_model() -> None:
    run_state_machine_as_test(
        BacklogMachine, settings=settings(max_examples=200, stateful_step_count=50, deadline=None)
    )
