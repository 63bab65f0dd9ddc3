"""A feed keeps each event once for all its watchers, and no more than its bounds allow."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest
import trio

from engine.actors.feed import (
    LOG_BYTES_MAX,
    LOGS_BYTES_MAX,
    TURN_BYTES,
    EventBatch,
    EventFilter,
    Feed,
    Logs,
    Watcher,
)
from engine.core.task import CallbackResult, Event, Status
from engine.errors import EngineStopping, WatcherLagged
from tests.support.builders import a_task, an_event, an_id

ALL = EventFilter()


def numbered(*seqs: int) -> list[Event]:
    return [an_event(a_task(seq), seq=seq) for seq in seqs]


def offer(feed: Feed, events: Sequence[Event]) -> None:
    """New events, and whoever waits for them is woken."""
    feed.offer(events)
    feed.idle.unpark_all()


async def seqs(watcher: Watcher) -> list[int]:
    with trio.fail_after(1):
        return [event.seq for event in await watcher.receive()]


async def waits(watcher: Watcher) -> bool:
    """Whether there is nothing for it."""
    with trio.move_on_after(1) as scope:
        await watcher.receive()
    return scope.cancelled_caught


# -- the filter --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (EventFilter(), True),
        (EventFilter(task_ids=frozenset({an_id(1)})), True),
        (EventFilter(task_ids=frozenset({an_id(2)})), False),
        (EventFilter(statuses=frozenset({Status.QUEUED, Status.FAILED})), True),
        (EventFilter(statuses=frozenset({Status.FAILED})), False),
        (EventFilter(names=frozenset({"invoice"})), True),
        (EventFilter(names=frozenset({"other"})), False),
        (EventFilter(task_ids=frozenset({an_id(1)}), names=frozenset({"other"})), False),
    ],
)
def test_a_filter_wants_what_all_its_parts_want(wanted, matches):
    assert wanted.matches(an_event(a_task(1))) is matches


# -- one watcher -------------------------------------------------------------------------------


async def test_a_watcher_gets_events_in_order_and_then_waits(autojump_clock):
    feed = Feed(ALL, limit=10)
    watcher = feed.add(after=0)
    offer(feed, numbered(1, 2))
    offer(feed, numbered(3))
    assert await seqs(watcher) == [1, 2, 3]
    assert await waits(watcher)
    offer(feed, numbered(4))
    assert await seqs(watcher) == [4]


async def test_a_watcher_begins_with_what_comes_after_it(autojump_clock):
    feed = Feed(ALL, limit=10)
    first = feed.add(after=0)
    offer(feed, numbered(1))
    second = feed.add(after=1)
    offer(feed, numbered(2))
    assert await seqs(second) == [2]
    assert await seqs(first) == [1, 2]


async def test_only_what_matches_is_kept_and_nobody_wakes_for_the_rest(autojump_clock):
    feed = Feed(EventFilter(task_ids=frozenset({an_id(2)})), limit=10)
    watcher = feed.add(after=0)
    assert not feed.offer(numbered(1, 3))
    assert await waits(watcher)
    assert feed.offer(numbered(1, 2, 3))
    assert await seqs(watcher) == [2]


async def test_a_watcher_that_does_not_keep_up_is_told_where_it_was(autojump_clock):
    feed = Feed(ALL, limit=3)
    watcher = feed.add(after=0)
    offer(feed, numbered(1, 2))
    await watcher.receive()
    offer(feed, numbered(3))
    offer(feed, numbered(4, 5, 6))
    for _ in range(2):
        with pytest.raises(WatcherLagged) as caught:
            await watcher.receive()
        assert caught.value.last_seq == 2


async def test_after_a_cut_only_new_watchers_go_on(autojump_clock):
    feed = Feed(ALL, limit=3)
    reads, lags = feed.add(after=0), feed.add(after=0)
    offer(feed, numbered(1))
    assert await seqs(reads) == [1]
    feed.cut()
    joins = feed.add(after=4)
    offer(feed, numbered(5))
    assert await seqs(joins) == [5]
    for watcher, last_seq in ((reads, 1), (lags, 0)):
        with pytest.raises(WatcherLagged) as caught:
            await watcher.receive()
        assert caught.value.last_seq == last_seq
        feed.remove(watcher)
    assert kept(feed) == 0


async def test_a_watcher_gets_what_is_left_before_it_hears_of_the_end(autojump_clock):
    feed = Feed(ALL, limit=3)
    watcher = feed.add(after=0)
    offer(feed, numbered(1))
    watcher.end()
    assert await seqs(watcher) == [1]
    for _ in range(2):
        with pytest.raises(EngineStopping):
            await watcher.receive()


async def test_a_watcher_that_is_cancelled_while_it_waits_loses_nothing(autojump_clock):
    feed = Feed(ALL, limit=3)
    watcher = feed.add(after=0)
    assert await waits(watcher)
    offer(feed, numbered(1))
    with trio.CancelScope() as scope:
        scope.cancel()
        await watcher.receive()
    assert await seqs(watcher) == [1]


# -- many watchers -----------------------------------------------------------------------------


async def test_all_watchers_get_the_same_batch_in_one_form(autojump_clock):
    made: list[EventBatch] = []

    def form(batch: EventBatch) -> bytes:
        made.append(batch)
        return bytes(event.seq for event in batch)

    feed = Feed(ALL, limit=10)
    watchers = [feed.add(after=0) for _ in range(5)]
    offer(feed, numbered(1, 2))
    batches = [await watcher.receive() for watcher in watchers]
    assert {id(batch) for batch in batches} == {id(batches[0])}
    assert [batch.form(form) for batch in batches] == [b"\x01\x02"] * 5
    assert len(made) == 1
    assert batches[0].form(lambda batch: b"%d" % len(batch)) == b"2"


async def test_one_that_lags_among_many_harms_nobody_else(autojump_clock):
    feed = Feed(ALL, limit=3)
    slow, *others = [feed.add(after=0) for _ in range(20)]
    for seq in range(1, 50):
        offer(feed, numbered(seq))
        for watcher in others:
            assert await seqs(watcher) == [seq]
    with pytest.raises(WatcherLagged):
        await slow.receive()


async def test_watchers_of_every_speed_get_everything(autojump_clock):
    """The n-th takes its turn after every n-th event: never further behind than the log is."""
    feed = Feed(ALL, limit=10)
    watchers = {pace: feed.add(after=0) for pace in range(1, 10)}
    taken: dict[int, list[int]] = {pace: [] for pace in watchers}
    for seq in range(1, 101):
        offer(feed, numbered(seq))
        for pace, watcher in watchers.items():
            if seq % pace == 0 or seq == 100:
                while len(taken[pace]) < seq:
                    taken[pace] += await seqs(watcher)
    assert all(seen == list(range(1, 101)) for seen in taken.values())


# -- bounds ------------------------------------------------------------------------------------


def kept(feed: Feed) -> int:
    """How many batches it keeps."""
    return feed.end - feed.first


async def test_what_all_have_taken_is_not_kept(autojump_clock):
    feed = Feed(ALL, limit=10)
    one, two = feed.add(after=0), feed.add(after=0)
    offer(feed, numbered(1))
    offer(feed, numbered(2))
    await one.receive()
    assert kept(feed) == 2
    await two.receive()
    assert kept(feed) == 0


async def test_what_only_those_who_left_have_not_taken_is_not_kept(autojump_clock):
    feed = Feed(ALL, limit=10)
    stays, leaves = feed.add(after=0), feed.add(after=0)
    offer(feed, numbered(1))
    await stays.receive()
    feed.remove(leaves)
    assert kept(feed) == 0
    offer(feed, numbered(2))
    assert await seqs(stays) == [2]
    feed.remove(stays)
    assert kept(feed) == 0


async def test_the_number_of_events_kept_is_bounded(autojump_clock):
    feed = Feed(ALL, limit=4)
    watcher = feed.add(after=0)
    for seq in range(1, 9, 2):
        offer(feed, numbered(seq, seq + 1))
        assert kept(feed) <= 2
    with pytest.raises(WatcherLagged):
        await watcher.receive()


async def test_the_bytes_kept_are_bounded(autojump_clock):
    feed = Feed(ALL, limit=1000)
    stuck, quick = feed.add(after=0), feed.add(after=0)
    result = CallbackResult(status_code=200, body="☎" * (LOG_BYTES_MAX // 8))
    for seq in range(1, 9):
        (event,) = numbered(seq)
        offer(feed, [attrs.evolve(event, result=result)])
        assert await seqs(quick) == [seq]
        assert kept(feed) <= 3
    with pytest.raises(WatcherLagged):
        await stuck.receive()


async def test_what_is_taken_at_once_is_bounded(autojump_clock):
    feed = Feed(ALL, limit=1000)
    watcher = feed.add(after=0)
    result = CallbackResult(status_code=200, body="x" * (TURN_BYTES // 4))
    for event in numbered(*range(1, 11)):
        offer(feed, [attrs.evolve(event, result=result)])
    taken = [await seqs(watcher) for _ in range(4)]
    assert taken == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10]]
    assert kept(feed) == 0


async def test_one_batch_beyond_all_bounds_is_passed_on(autojump_clock):
    feed = Feed(ALL, limit=2)
    watcher = feed.add(after=0)
    offer(feed, numbered(1, 2, 3))
    assert await seqs(watcher) == [1, 2, 3]


def test_all_feeds_together_keep_no_more_than_their_hub_may():
    logs = Logs()
    feeds = [Feed(EventFilter(), limit=10_000, logs=logs) for _ in range(40)]
    for feed in feeds:
        feed.add(after=0)
    big = CallbackResult(status_code=200, body="x" * 100_000)
    for seq in range(1, 31):
        for feed in feeds:
            feed.offer([an_event(a_task(seq), seq=seq, result=big)])
    assert LOGS_BYTES_MAX / 2 < logs.size <= LOGS_BYTES_MAX + 40 * 200_000
    for feed in feeds:
        assert feed.first < feed.end  # the newest is kept
        feed.close()
    assert logs.size == 0
