"""The status hub: passes every durable change of status on to those who watch.

A watcher has a bounded buffer. One that does not keep up is told so and dropped; it can resume
after the last event it got, because events are kept in the store. Nobody ever waits for it.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Sequence

import attrs
import trio

from engine.config import EngineConfig
from engine.core.task import Event, Status, TaskId
from engine.errors import EngineStopping, Overloaded, StoreUnavailable, WatcherLagged
from engine.messages import Committed
from engine.ports.store import Store

from .mailbox import Inbox


@attrs.frozen(kw_only=True)
class EventFilter:
    """Which events a watcher wants; an empty set means all."""

    task_ids: frozenset[TaskId] = frozenset()
    statuses: frozenset[Status] = frozenset()
    names: frozenset[str] = frozenset()

    def matches(self, event: Event) -> bool:
        """Whether this is one of them."""
        return (
            (not self.task_ids or event.task_id in self.task_ids)
            and (not self.statuses or event.to_status in self.statuses)
            and (not self.names or event.name in self.names)
        )


class Watcher:
    """One watcher's buffer. Filled by the hub, emptied by ``receive``."""

    def __init__(self, wanted: EventFilter, limit: int, after: int, *, lasting: bool) -> None:
        self.wanted = wanted
        self.lasting = lasting  # to the very end, while others end when the engine begins to stop
        self.after = after  # events up to here have not passed through the buffer
        self._limit = limit
        self._buffer: deque[Event] = deque()
        self._wake = trio.Event()
        self._lagged = False
        self._ended = False
        self._last_seq = after

    def offer(self, events: Iterable[Event]) -> None:
        """New events, in order. Never blocks."""
        self._buffer.extend(event for event in events if self.wanted.matches(event))
        if len(self._buffer) > self._limit:
            self._lagged = True
            self._buffer.clear()
        if self._buffer or self._lagged:
            self._wake.set()

    def end(self) -> None:
        """No more will come."""
        self._ended = True
        self._wake.set()

    async def receive(self) -> list[Event]:
        """What has come, at least one event. Raises ``WatcherLagged`` if some were dropped,
        ``EngineStopping`` when the hub ends."""
        await self._wake.wait()
        if self._lagged:
            raise WatcherLagged(self._last_seq)
        if not self._buffer:
            raise EngineStopping
        events = list(self._buffer)
        self._buffer.clear()
        self._last_seq = events[-1].seq
        if not self._ended:
            self._wake = trio.Event()
        return events


class StatusHub:
    """Owns the watchers. Receives ``Committed``; fills their buffers. Stops when its inbox ends."""

    def __init__(self, inbox: Inbox[Committed], store: Store, config: EngineConfig) -> None:
        self._inbox = inbox
        self._store = store
        self._config = config
        self._for_all: set[Watcher] = set()
        self._for_task: dict[TaskId, set[Watcher]] = {}
        self.last_seq = 0  # everything up to here has been passed on
        self._stopping = False
        self._ended = False
        self._newest = 0  # everything up to here is durable

    def __len__(self) -> int:
        return len(self._all())

    def publish(self, events: tuple[Event, ...]) -> None:
        """Events have become durable. Never blocks: what the inbox has no room for is read again
        from the store."""
        self._newest = events[-1].seq
        with contextlib.suppress(Overloaded):
            self._inbox.tell(Committed(events))

    def add(self, wanted: EventFilter, *, lasting: bool = False) -> Watcher:
        """A watcher of everything after ``last_seq``; raises ``Overloaded`` if there are too many,
        ``EngineStopping`` if the engine stops and it is not ``lasting``, or has stopped."""
        if self._ended or (self._stopping and not lasting):
            raise EngineStopping
        if len(self) >= self._config.watchers_max:
            raise Overloaded("too many watchers")
        watcher = Watcher(wanted, self._config.watcher_buffer, self.last_seq, lasting=lasting)
        if wanted.task_ids:
            for task_id in wanted.task_ids:
                self._for_task.setdefault(task_id, set()).add(watcher)
        else:
            self._for_all.add(watcher)
        return watcher

    def remove(self, watcher: Watcher) -> None:
        """It watches no more."""
        self._for_all.discard(watcher)
        for task_id in watcher.wanted.task_ids:
            watchers = self._for_task.get(task_id, set())
            watchers.discard(watcher)
            if not watchers:
                self._for_task.pop(task_id, None)

    def stop(self) -> None:
        """The engine begins to stop: end all watchers but the lasting ones."""
        self._stopping = True
        for watcher in self._all():
            if not watcher.lasting:
                watcher.end()

    def _all(self) -> set[Watcher]:
        return self._for_all.union(*self._for_task.values())

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until the inbox ends."""
        _, self.last_seq = await self._store.event_range()
        self._newest = max(self._newest, self.last_seq)
        task_status.started()
        try:
            while True:
                committed = await self._inbox.receive()
                await self._catch_up(committed.events[0].seq - 1)
                await self._pass_on([e for e in committed.events if e.seq > self.last_seq])
                if len(self._inbox) == 0:
                    await self._catch_up(self._newest)
        except trio.EndOfChannel:
            pass
        finally:
            self._ended = True
            for watcher in self._all():
                watcher.end()
            self._inbox.abandon()

    async def _catch_up(self, seq: int) -> None:
        """Pass on what the inbox had no room for, up to ``seq``."""
        while self.last_seq < seq:
            try:
                missed = await self._store.events(self.last_seq, self._config.event_page)
            except StoreUnavailable:
                await trio.sleep(self._config.store_retry_s)
                continue
            if not missed:
                return
            await self._pass_on(missed)

    async def _pass_on(self, events: Sequence[Event]) -> None:
        """In parts of a buffer, so that one big commit drops nobody who keeps up."""
        part = max(1, self._config.watcher_buffer // 4)
        for start in range(0, len(events), part):
            self._offer(events[start : start + part])
            await trio.lowlevel.checkpoint()

    def _offer(self, events: Sequence[Event]) -> None:
        self.last_seq = events[-1].seq
        for watcher in self._for_all:
            watcher.offer(events)
        if self._for_task:
            for event in events:
                for watcher in self._for_task.get(event.task_id, ()):
                    watcher.offer((event,))
