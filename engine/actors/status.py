"""The status hub: passes every durable change of status on to those who watch.

Who watches single tasks waits for them, so they hear at once. All others hear in rounds: after a
round over many watchers the hub gathers what happens for a while, because a thousand small writes
for every commit would leave no time for tasks. Nobody ever waits for a watcher.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from typing import Final

import trio

from engine.config import EngineConfig
from engine.core.task import Event, TaskId
from engine.errors import EngineStopping, Overloaded, StoreUnavailable
from engine.messages import Committed
from engine.ports.store import Store

from .feed import EventFilter, Feed, Logs, Watcher
from .mailbox import Inbox

WOKEN_AT_ONCE: Final = 100  # watchers that run before anything else has its turn
PAUSE_PER_WATCHER_S: Final = 0.0001  # several times what it costs to send to one
PAUSE_MIN_S: Final = 0.001  # a few watchers are worth no timer
PAUSE_MAX_S: Final = 0.15


class StatusHub:
    """Owns the feeds. Receives ``Committed``; fills them. Stops when its inbox ends."""

    def __init__(self, inbox: Inbox[Committed], store: Store, config: EngineConfig) -> None:
        self._inbox = inbox
        self._store = store
        self._config = config
        self._feeds: dict[EventFilter, Feed] = {}
        self._logs = Logs()
        self._for_task: dict[TaskId, set[Feed]] = {}
        self._watchers = 0
        self.last_seq = 0  # everything up to here has been passed on or gathered
        self._rounds = _Rounds(part=max(1, config.watcher_buffer // 4))
        self._stopping = False
        self._ended = False
        self._newest = 0  # everything up to here is durable
        self._lost_track = False

    def __len__(self) -> int:
        return self._watchers

    def publish(self, events: tuple[Event, ...]) -> None:
        """Events have become durable. Never blocks: what the inbox has no room for is read again
        from the store."""
        self._newest = events[-1].seq
        with contextlib.suppress(Overloaded):
            self._inbox.tell(Committed(events))

    def lost_track(self) -> None:
        """A transaction failed, and may have become durable all the same: its events would else be
        passed on with those of the next one."""
        self._lost_track = True
        with contextlib.suppress(Overloaded):  # then it is awake, and reads them anyway
            self._inbox.tell(Committed(()))

    def add(self, wanted: EventFilter, *, lasting: bool = False) -> Watcher:
        """A watcher of everything after its ``after``; raises ``Overloaded`` if there are too many,
        ``EngineStopping`` if the engine stops and it is not ``lasting``, or has stopped."""
        if self._ended or (self._stopping and not lasting):
            raise EngineStopping
        if self._watchers >= self._config.watchers_max:
            raise Overloaded("too many watchers")
        feed = self._feeds.get(wanted) or self._open(wanted)
        self._watchers += 1
        after = self.last_seq if wanted.task_ids else self._rounds.last_seq
        return feed.add(after, lasting=lasting)

    def _open(self, wanted: EventFilter) -> Feed:
        feed = self._feeds[wanted] = Feed(wanted, self._config.watcher_buffer, self._logs)
        if not wanted.task_ids:
            self._rounds.feeds.add(feed)
        for task_id in wanted.task_ids:
            self._for_task.setdefault(task_id, set()).add(feed)
        return feed

    def remove(self, watcher: Watcher) -> None:
        """It watches no more."""
        feed = watcher.feed
        if watcher not in feed.watchers:
            return
        self._watchers -= 1
        feed.remove(watcher)
        if not feed.watchers:
            self._close(feed)

    def _close(self, feed: Feed) -> None:
        feed.close()
        del self._feeds[feed.wanted]
        self._rounds.feeds.discard(feed)
        for task_id in feed.wanted.task_ids:
            feeds = self._for_task[task_id]
            feeds.discard(feed)
            if not feeds:
                del self._for_task[task_id]

    def stop(self) -> None:
        """The engine begins to stop: end all watchers but the lasting ones."""
        self._stopping = True
        self._end(lasting=False)

    def _end(self, *, lasting: bool) -> None:
        for feed in self._feeds.values():
            for watcher in feed.watchers:
                if lasting or not watcher.lasting:
                    watcher.end()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until the inbox ends."""
        _, self.last_seq = await self._store.event_range()
        self._newest = max(self._newest, self.last_seq)
        self._rounds.last_seq = self.last_seq
        task_status.started()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._rounds.run)
                await self._pass_on_what_comes()
                nursery.cancel_scope.cancel(reason="no more events will come")
        finally:
            self._ended = True
            self._rounds.begin()
            self._end(lasting=True)
            self._inbox.abandon()

    async def _pass_on_what_comes(self) -> None:
        with contextlib.suppress(trio.EndOfChannel):
            while True:
                events = (await self._inbox.receive()).events
                if self._lost_track:
                    self._lost_track = False
                    await self._catch_up(math.inf)
                if events:
                    await self._catch_up(events[0].seq - 1)
                    await self._pass_on([e for e in events if e.seq > self.last_seq])
                if len(self._inbox) == 0:
                    await self._catch_up(self._newest)

    async def _catch_up(self, seq: float) -> None:
        """Pass on what the inbox had no room for, up to ``seq``."""
        while self.last_seq < seq:
            try:
                missed = await self._store.events(self.last_seq, self._config.event_page)
            except StoreUnavailable:
                await trio.sleep(self._config.store_retry_s)
                continue
            if not missed:
                if seq < math.inf:
                    self._skip_to(int(seq))
                return
            await self._pass_on(missed)

    def _skip_to(self, seq: int) -> None:
        """Events up to ``seq`` have been removed before they could be passed on. Whoever watches is
        told, and hears from the store what is gone on resuming."""
        self.last_seq = seq
        self._rounds.skip_to(seq)
        for feed in self._feeds.values():
            feed.cut()

    async def _pass_on(self, events: Sequence[Event]) -> None:
        """In parts of a buffer, so that one big commit drops nobody who keeps up."""
        if events and events[0].seq > self.last_seq + 1:
            self._skip_to(events[0].seq - 1)
        for start in range(0, len(events), self._rounds.part):
            some = events[start : start + self._rounds.part]
            self.last_seq = some[-1].seq
            self._tell_who_waits_for_tasks(some)
            await self._rounds.gather(some)

    def _tell_who_waits_for_tasks(self, events: Iterable[Event]) -> None:
        if self._for_task:
            for event in events:
                for feed in self._for_task.get(event.task_id, ()):
                    if feed.offer((event,)):
                        feed.idle.unpark_all()


class _Rounds:
    """Gathers events, and passes what has been gathered on to the feeds for all tasks.

    The first event after a silence goes out at once. ``part`` is how many events end a pause: a
    quarter of what a watcher may lag behind.
    """

    def __init__(self, part: int) -> None:
        self.part = part
        self.feeds: set[Feed] = set()
        self.last_seq = 0  # everything up to here has been passed on
        self._gathered: list[Event] = []
        self._some = trio.Event()
        self._enough = trio.Event()
        self._taken = trio.Event()

    async def gather(self, events: Sequence[Event]) -> None:
        """Have these passed on soon. Waits while there are too many."""
        self._gathered += events
        self._some.set()
        if len(self._gathered) >= self.part:
            self._enough.set()
            await self._taken.wait()

    def skip_to(self, seq: int) -> None:
        """What follows comes after ``seq``; what has been gathered does not matter any more."""
        self._gathered = []
        self.last_seq = seq

    def begin(self) -> list[Feed]:
        """Put what has been gathered into the feeds; those who have got something."""
        events, self._gathered = self._gathered, []
        self._some, self._enough = trio.Event(), trio.Event()
        self._taken.set()
        self._taken = trio.Event()
        if events:
            self.last_seq = events[-1].seq
        return [feed for feed in self.feeds if feed.offer(events)]

    async def run(self) -> None:
        """Round after round, until cancelled."""
        while True:
            await self._some.wait()
            feeds = self.begin()
            await _wake(feeds)
            pause_s = PAUSE_PER_WATCHER_S * sum(len(feed.watchers) for feed in feeds)
            if pause_s >= PAUSE_MIN_S:
                with trio.move_on_after(min(pause_s, PAUSE_MAX_S)):
                    await self._enough.wait()


async def _wake(feeds: Iterable[Feed]) -> None:
    """Wake the idle watchers, in groups: all at once would hold up everything else."""
    room = WOKEN_AT_ONCE
    for feed in feeds:
        waiting = len(feed.idle)
        while waiting > 0:
            woken = min(waiting, room)
            feed.idle.unpark(count=woken)
            waiting -= woken
            room -= woken
            if not room:
                await trio.lowlevel.checkpoint()
                room = WOKEN_AT_ONCE
    await trio.lowlevel.checkpoint()
