"""Watchers see every durable change once, in order, and never slow the engine."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing

from engine.actors.feed import EventFilter, Watcher
from engine.actors.mailbox import Inbox
from engine.actors.status import PAUSE_PER_WATCHER_S, StatusHub
from engine.actors.watch import Watch
from engine.config import EngineConfig
from engine.core.task import Dispatch, Event, RetryPolicy, Status
from engine.errors import (
    CursorExpired,
    EngineStopping,
    IllegalTransition,
    Overloaded,
    StoreUnavailable,
    WatcherLagged,
)
from engine.messages import Committed
from engine.service import Engine
from tests.support.builders import a_task, an_event, an_id, at, write
from tests.support.engine import (
    BAD,
    GOOD,
    HANGS,
    After,
    TroubledStore,
    World,
    submit,
    submit_one,
    until,
)
from tests.support.sweep import nobody_hangs

URL = "http://callee.example/it"


async def seen(watch: Watch | Watcher, number: int) -> list[Event]:
    """So many events, and no more than those."""
    events: list[Event] = []
    with trio.fail_after(60):
        while len(events) < number:
            events += await watch.receive()
    assert len(events) == number
    return events


async def tail(engine: Engine, events: list[Event], wanted: EventFilter | None = None) -> None:
    """Collect what comes, until the engine stops."""
    async with engine.watch(wanted) as watch:
        try:
            while True:
                events += await watch.receive()
        except EngineStopping:
            pass


# -- the hub -----------------------------------------------------------------------------------


class Rig:
    """A hub whose commits the test makes."""

    def __init__(self, **settings: Any) -> None:
        self.store = TroubledStore()
        config = EngineConfig(**settings)
        self.inbox = Inbox[Committed]("status hub", config.inbox)
        self.hub = StatusHub(self.inbox, self.store, config)

    async def commit(self, *numbers: int) -> None:
        """One commit for each task, and all announced in one breath."""
        for n in numbers:
            await write(self.store.inner, inserts=[a_task(n)], events=[an_event(a_task(n))])
        _, newest = await self.store.inner.event_range()
        for event in await self.store.inner.events(newest - len(numbers), len(numbers)):
            self.hub.publish((event,))

    async def remove(self, number: int) -> None:
        """So many events, the oldest ones, are older than they are kept."""
        await self.store.inner.transact(lambda r: r.prune(at(1), at(0), at(0), number))


async def test_what_its_inbox_has_no_room_for_is_read_again_without_a_gap(autojump_clock):
    rig = Rig(inbox=1, event_page=2)
    await rig.commit(1, 2)  # before it runs: it begins where the store is
    async with trio.open_nursery() as nursery:
        await nursery.start(rig.hub.run)
        watcher = rig.hub.add(EventFilter())
        await rig.commit(*range(3, 12))  # all but one find no room
        await trio.sleep(1)
        rig.inbox.close()
    assert [event.seq for event in await seen(watcher, 9)] == list(range(3, 12))


async def test_a_burst_beyond_its_inbox_reaches_the_watchers_complete(autojump_clock):
    rig = Rig(inbox=2, event_page=3)
    async with trio.open_nursery() as nursery:
        await nursery.start(rig.hub.run)
        watcher = rig.hub.add(EventFilter())
        one = rig.hub.add(EventFilter(task_ids=frozenset({an_id(17)})))
        rig.store.reads_down = True  # and it cannot catch up for a while
        await rig.commit(*range(1, 21))
        await trio.sleep(5)
        rig.store.reads_down = False
        await trio.sleep(5)
        assert [event.seq for event in await seen(watcher, 20)] == list(range(1, 21))
        assert [event.task_id for event in await one.receive()] == [an_id(17)]
        rig.inbox.close()


@pytest.mark.parametrize("removed", [19, 20, 21], ids=["some", "all but one", "all"])
async def test_who_cannot_be_given_what_was_removed_is_told(autojump_clock, removed):
    """Removed before it could be passed on: for so long the store could not be read."""
    rig = Rig(inbox=1, event_page=3)
    async with trio.open_nursery() as nursery:
        await nursery.start(rig.hub.run)
        told = [*crowd(rig.hub), rig.hub.add(EventFilter(task_ids=frozenset({an_id(3)})))]
        await rig.commit(1)
        await told[0].receive()
        rig.store.reads_down = True
        await rig.commit(*range(2, 22))  # the first one is gathered, of the others all but one lost
        await rig.remove(removed)
        await trio.sleep(5)
        rig.store.reads_down = False
        await trio.sleep(5)
        joins = rig.hub.add(EventFilter())
        assert joins.after == 21
        await rig.commit(22)
        assert [event.seq for event in await seen(joins, 1)] == [22]
        for watcher, last_seq in ((told[0], 1), (told[1], 0), (told[-1], 0)):
            with pytest.raises(WatcherLagged) as caught:
                await watcher.receive()
            assert caught.value.last_seq == last_seq
            rig.hub.remove(watcher)
        rig.inbox.close()


async def test_who_waits_for_what_was_removed_is_woken_and_cannot_resume(autojump_clock):
    rig = Rig(inbox=1)
    waits = Watch(rig.hub, rig.store, EventFilter(), None, page_size=10, lasting=False)
    resumes = Watch(rig.hub, rig.store, EventFilter(), 0, page_size=10, lasting=False)
    told: list[int] = []

    async def wait() -> None:
        try:
            while True:
                await waits.receive()
        except WatcherLagged as error:
            told.append(error.last_seq)

    async with trio.open_nursery() as nursery:
        await nursery.start(rig.hub.run)
        nursery.start_soon(wait)
        rig.store.reads_down = True
        await rig.commit(1, 2, 3)  # the inbox has room for the first
        await rig.remove(3)
        await trio.sleep(5)
        assert told == []
        rig.store.reads_down = False
        await trio.sleep(5)
        assert told == [1]
        with pytest.raises(CursorExpired):
            await resumes.receive()
        rig.inbox.close()


async def test_removed_watchers_leave_nothing_behind(autojump_clock):
    rig = Rig(watchers_max=2)
    both = EventFilter(task_ids=frozenset({an_id(1), an_id(2)}))
    watchers = [rig.hub.add(both), rig.hub.add(both)]
    assert len(rig.hub) == 2
    with pytest.raises(Overloaded, match="too many watchers"):
        rig.hub.add(EventFilter())
    rig.hub.remove(watchers[0])
    rig.hub.remove(watchers[0])
    rig.hub.add(EventFilter())
    rig.hub.remove(watchers[1])
    assert len(rig.hub) == 1


async def test_who_watches_a_hub_that_has_ended_is_told_so(autojump_clock):
    rig = Rig()
    async with trio.open_nursery() as nursery:
        await nursery.start(rig.hub.run)
        rig.inbox.close()
    for lasting in (False, True):
        with trio.fail_after(1), pytest.raises(EngineStopping):
            await rig.hub.add(EventFilter(), lasting=lasting).receive()


# -- rounds ------------------------------------------------------------------------------------


def crowd(hub: StatusHub) -> list[Watcher]:
    """Watchers of everything, so many that the hub pauses between rounds."""
    return [hub.add(EventFilter()) for _ in range(1000)]


async def test_a_crowd_gets_the_first_event_at_once_and_what_follows_together(autojump_clock):
    rig = Rig()
    async with trio.open_nursery() as nursery:
        await nursery.start(rig.hub.run)
        watchers = crowd(rig.hub)
        await rig.commit(1)
        batches = [await watcher.receive() for watcher in watchers]
        assert trio.current_time() == 0
        for n in range(2, 12):
            await rig.commit(n)
            await trio.testing.wait_all_tasks_blocked()
        batches += [await watcher.receive() for watcher in watchers]
        assert [[event.seq for event in batch] for batch in batches[::1000]] == [
            [1],
            list(range(2, 12)),
        ]
        assert len({id(batch) for batch in batches}) == 2
        assert trio.current_time() == pytest.approx(PAUSE_PER_WATCHER_S * 1000)
        rig.inbox.close()


async def test_who_waits_for_a_task_does_not_wait_with_the_crowd(autojump_clock):
    rig = Rig()
    async with trio.open_nursery() as nursery:
        await nursery.start(rig.hub.run)
        watchers = crowd(rig.hub)
        one = rig.hub.add(EventFilter(task_ids=frozenset({an_id(2)})))
        await rig.commit(1)
        await watchers[0].receive()
        await rig.commit(2)
        assert [event.seq for event in await one.receive()] == [2]
        assert trio.current_time() == 0
        rig.inbox.close()


async def test_much_that_happens_at_once_ends_the_pause(autojump_clock):
    rig = Rig(watcher_buffer=20)
    async with trio.open_nursery() as nursery:
        await nursery.start(rig.hub.run)
        watcher = crowd(rig.hub)[0]
        await rig.commit(1)
        assert [event.seq for event in await watcher.receive()] == [1]
        for begin in range(2, 102, 5):  # a quarter of the buffer each
            await rig.commit(*range(begin, begin + 5))
            assert [event.seq for event in await seen(watcher, 5)] == [*range(begin, begin + 5)]
        assert trio.current_time() == 0
        rig.inbox.close()


async def test_who_joins_a_crowd_during_a_pause_gets_what_comes_after_its_position(autojump_clock):
    rig = Rig()
    async with trio.open_nursery() as nursery:
        await nursery.start(rig.hub.run)
        crowd(rig.hub)
        for n in range(1, 8):
            joins = rig.hub.add(EventFilter())
            await rig.commit(n)
            await trio.testing.wait_all_tasks_blocked()
            events = [event.seq for event in await joins.receive()]
            assert events == list(range(joins.after + 1, n + 1))
        rig.inbox.close()


async def test_what_was_gathered_is_passed_on_before_the_end(autojump_clock):
    rig = Rig()
    async with trio.open_nursery() as nursery:
        await nursery.start(rig.hub.run)
        watcher = crowd(rig.hub)[0]
        for n in range(1, 4):
            await rig.commit(n)
            await trio.testing.wait_all_tasks_blocked()
        rig.inbox.close()
    assert [event.seq for event in await seen(watcher, 3)] == [1, 2, 3]
    with pytest.raises(EngineStopping):
        await watcher.receive()


@pytest.mark.parametrize("watchers_of_all", [1, 300])
async def test_watchers_of_all_kinds_and_speeds_get_all_that_is_theirs(
    autojump_clock, watchers_of_all
):
    rig = Rig(watcher_buffer=40, watchers_max=1000)
    filters = [
        EventFilter(),
        EventFilter(statuses=frozenset({Status.QUEUED})),
        EventFilter(statuses=frozenset({Status.FAILED})),
        EventFilter(names=frozenset({"invoice", "other"})),
        *(EventFilter(task_ids=frozenset({an_id(n), an_id(n + 50)})) for n in range(1, 40, 7)),
    ]
    filters += [EventFilter()] * watchers_of_all
    taken: list[list[int]] = [[] for _ in filters]

    async def watch(watcher: Watcher, seqs: list[int], pause_s: float) -> None:
        with suppress(EngineStopping):
            while True:
                seqs += [event.seq for event in await watcher.receive()]
                await trio.sleep(pause_s)

    async with trio.open_nursery() as nursery:
        await nursery.start(rig.hub.run)
        for n, wanted in enumerate(filters):
            nursery.start_soon(watch, rig.hub.add(wanted), taken[n], n % 5 / 100)
        for n in range(1, 101):
            await rig.commit(n)
            await trio.sleep(0.01)
        rig.inbox.close()
    events = await rig.store.inner.events(0, 1000)
    assert taken == [[event.seq for event in events if wanted.matches(event)] for wanted in filters]


# -- with everything around it -----------------------------------------------------------------


async def test_a_watch_sees_the_whole_life_of_a_task_once_and_in_order(autojump_clock):
    world = World(it=[500, 200])
    events: list[Event] = []
    async with trio.open_nursery() as nursery:
        async with world.open() as engine:
            nursery.start_soon(tail, engine, events)
            await trio.testing.wait_all_tasks_blocked()
            task_id = await submit_one(engine, URL)
            await until(engine, [task_id])
            assert (await engine.stats()).watchers == 1
    assert [event.to_status.value for event in events] == [
        *("Queued", "Pending", "Processing", "Retrying", "Processing", "Completed")
    ]
    assert [event.seq for event in events] == list(range(1, 7))
    assert events == await world.events()


async def test_a_watch_sees_only_what_it_asked_for(autojump_clock):
    world = World()
    events: list[Event] = []
    wanted = EventFilter(statuses=frozenset({Status.FAILED}), names=frozenset({"mine"}))
    async with trio.open_nursery() as nursery:
        async with world.open() as engine:
            nursery.start_soon(tail, engine, events, wanted)
            await trio.testing.wait_all_tasks_blocked()
            for name in ("mine", "yours"):
                policy = RetryPolicy(max_attempts=1)
                await until(engine, await submit(engine, GOOD, BAD, name=name, retry_policy=policy))
    assert [(event.name, event.to_status) for event in events] == [("mine", Status.FAILED)]


@pytest.mark.parametrize("page", [1, 2, 3, 100])
async def test_a_resumed_watch_first_gets_what_it_missed_then_what_comes(autojump_clock, page):
    world = World()
    async with world.open(event_page=page) as engine:
        before = await submit(engine, *[GOOD] * 5)
        await until(engine, before)
        async with engine.watch(after=7) as watch:
            events = await seen(watch, 13)
            after = await submit(engine, *[GOOD] * 3)
            await until(engine, after)
            events += await seen(watch, 12)
            assert watch.position == 32
    assert [event.seq for event in events] == list(range(8, 33))


async def test_a_watch_that_resumes_during_a_flood_misses_and_repeats_nothing(autojump_clock):
    world = World(it=[After(0.01)])
    collected: list[list[int]] = []

    async def resume(engine: Engine, after: int) -> None:
        async with engine.watch(after=after) as watch:
            seqs: list[int] = []
            while not seqs or seqs[-1] < 800:
                seqs += [event.seq for event in await watch.receive()]
            collected.append(seqs)

    async with world.open(executors=8, inbox=200, event_page=7) as engine:
        async with trio.open_nursery() as nursery:
            for round_number in range(10):
                await submit(engine, *[URL] * 20)
                nursery.start_soon(resume, engine, round_number * 10)
                await trio.sleep(0.02)
    assert len(collected) == 10
    for seqs in collected:
        assert seqs == list(range(seqs[0], seqs[-1] + 1))
    assert {seqs[0] for seqs in collected} == {n * 10 + 1 for n in range(10)}


async def test_events_of_a_commit_whose_fate_was_unknown_are_passed_on(autojump_clock):
    """It took effect and is said to have failed: nobody tells the hub of it, and nothing follows."""
    world = World()
    async with world.open(sweep_interval_s=1000.0) as engine, engine.watch() as watch:
        world.store.unknown_at = {world.store.transactions + 1}
        with pytest.raises(StoreUnavailable):
            await submit(engine, URL, URL, dispatch=Dispatch.MANUAL)
        assert [event.seq for event in await seen(watch, 2)] == [1, 2]
        await submit_one(engine, dispatch=Dispatch.MANUAL)
        assert [event.seq for event in await seen(watch, 1)] == [3]


async def test_events_that_are_gone_cannot_be_resumed_from(autojump_clock):
    world = World()
    async with world.open(event_retention_s=10.0, prune_interval_s=5.0) as engine:
        await until(engine, await submit(engine, GOOD, GOOD))
        await trio.sleep(20)
        await engine.check_cursor(8)
        with pytest.raises(CursorExpired) as caught:
            await engine.check_cursor(3)
        assert (caught.value.after, caught.value.oldest) == (3, 9)
        async with engine.watch(after=3) as watch:
            with pytest.raises(CursorExpired):
                await watch.receive()


async def test_a_slow_watcher_is_dropped_and_can_resume_where_it_was(autojump_clock):
    world = World()
    async with world.open(watcher_buffer=10) as engine:
        async with engine.watch() as watch:
            first = await submit_one(engine, dispatch=Dispatch.MANUAL)
            assert [event.task_id for event in await watch.receive()] == [first]
            await until(engine, await submit(engine, *[GOOD] * 10))
            with pytest.raises(WatcherLagged) as caught:
                await watch.receive()
        assert caught.value.last_seq == watch.position == 1
        async with engine.watch(after=watch.position) as again:
            assert [event.seq for event in await seen(again, 40)] == list(range(2, 42))


async def test_a_watcher_that_keeps_up_is_not_dropped_for_one_big_commit(autojump_clock):
    world = World()
    events: list[Event] = []
    async with trio.open_nursery() as nursery:
        async with world.open(watcher_buffer=10) as engine:
            nursery.start_soon(tail, engine, events)
            await trio.testing.wait_all_tasks_blocked()
            await submit(engine, *[GOOD] * 50, dispatch=Dispatch.MANUAL)
            await trio.sleep(1)
    assert [event.seq for event in events] == list(range(1, 51))


async def test_watchers_are_limited(autojump_clock):
    world = World()
    async with world.open(watchers_max=1) as engine:
        async with engine.watch():
            with pytest.raises(Overloaded):
                async with engine.watch():
                    pass
        async with engine.watch():
            pass


async def test_a_stop_ends_every_watch(autojump_clock):
    world = World()
    async with nobody_hangs(60) as nursery:
        async with world.open() as engine:
            for _ in range(3):
                nursery.start_soon(tail, engine, [])
            await trio.testing.wait_all_tasks_blocked()


async def test_a_stop_does_not_wait_for_a_hub_that_cannot_read_the_store(autojump_clock):
    world = World()
    async with world.open(inbox=2, executors=1, store_retry_s=0.5) as engine:
        world.store.reads_down = True
        for seq in range(10, 15):  # more at once than its inbox holds
            engine._parts.hub.publish((an_event(a_task(1), seq=seq),))
        await trio.sleep(5)
        with pytest.raises(StoreUnavailable):
            await engine.stats()
        began = trio.current_time()
    assert trio.current_time() - began < 60


async def test_watches_end_when_the_stop_begins_and_lasting_ones_go_on(autojump_clock):
    world = World(it=[After(3.0)])
    async with world.open() as engine:
        task_id = await submit_one(engine, URL)
        await trio.sleep(1)
        async with engine.watch() as watch, engine.watch(lasting=True) as lasting:
            engine.stop()
            with pytest.raises(EngineStopping):
                await watch.receive()
            with pytest.raises(EngineStopping):
                async with engine.watch():
                    pass
            (event,) = await lasting.receive()
            assert (event.task_id, event.to_status) == (task_id, Status.COMPLETED)


# -- execute and wait --------------------------------------------------------------------------


async def test_execute_and_wait_answers_with_the_end(autojump_clock):
    world = World(it=[After(2.0)])
    async with world.open() as engine:
        task_id = await submit_one(engine, URL, dispatch=Dispatch.MANUAL)
        await engine.dequeue()
        task = await engine.execute_and_wait(task_id, 30.0)
        assert task.status is Status.COMPLETED
        assert (await engine.stats()).watchers == 0
    assert trio.current_time() == pytest.approx(2.0, abs=0.1)


async def test_execute_and_wait_waits_through_retries(autojump_clock):
    world = World()
    async with world.open() as engine:
        task_id = await submit_one(engine, BAD, dispatch=Dispatch.MANUAL)
        await engine.dequeue()
        task = await engine.execute_and_wait(task_id, 300.0)
        assert (task.status, task.failures) == (Status.FAILED, 3)


async def test_execute_and_wait_gives_up_waiting_but_not_the_task(autojump_clock):
    world = World(it=[After(8.0)])
    async with world.open() as engine:
        task_id = await submit_one(engine, URL, dispatch=Dispatch.MANUAL)
        await engine.dequeue()
        assert (await engine.execute_and_wait(task_id, 3.0)).status is Status.PROCESSING
        with pytest.raises(IllegalTransition):
            await engine.execute_and_wait(task_id, 3.0)
        await until(engine, [task_id])


async def test_execute_and_wait_tells_where_the_task_is_when_the_engine_stops(autojump_clock):
    world = World()
    found: list[Status] = []

    async def wait(engine: Engine, task_id: str) -> None:
        found.append((await engine.execute_and_wait(task_id, 1000.0)).status)

    async with nobody_hangs(60) as nursery:
        async with world.open(grace_s=5.0) as engine:
            task_id = await submit_one(engine, HANGS, dispatch=Dispatch.MANUAL, timeout_s=500.0)
            await engine.dequeue()
            nursery.start_soon(wait, engine, task_id)
            await trio.sleep(1)
    assert found == [Status.RETRYING]
