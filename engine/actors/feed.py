"""A feed: the events that match one filter, kept once for all who watch with that filter.

A watcher is a position in its feed and nothing more, so an event costs a feed the same whether one
watches or a thousand. The log is bounded; a watcher that falls out of it is told so, and can resume
from the store. What everybody has taken is dropped at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from sys import getsizeof
from typing import Final, overload

import attrs
import trio

from engine.core.task import Event, Status, TaskId
from engine.errors import EngineStopping, WatcherLagged

LOG_BYTES_MAX: Final = 4 * 1024 * 1024
"""What a feed keeps for watchers that lag behind; its newest batch it keeps in any case."""

LOGS_BYTES_MAX: Final = 64 * 1024 * 1024
"""What all feeds of a hub keep together."""

TURN_BYTES: Final = 64 * 1024
"""What a watcher that lags behind takes at once; only a single batch may be more."""

_EVENT_BYTES: Final = 500  # an event without its texts


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


def _size_of(batch: EventBatch) -> int:
    """About the bytes its events take; their texts may come from anywhere."""
    size = 0
    for event in batch:
        size += _EVENT_BYTES + getsizeof(event.name) + getsizeof(event.reason)
        if event.result is not None:
            size += getsizeof(event.result.body) + getsizeof(event.result.error)
    return size


@attrs.frozen(eq=False)
class EventBatch(Sequence[Event]):
    """Events in order, the same object for all who watch with the same filter."""

    events: tuple[Event, ...]
    size: int = attrs.field(default=attrs.Factory(_size_of, takes_self=True), init=False)
    _forms: dict[Callable[[EventBatch], bytes], bytes] = attrs.field(
        factory=dict, repr=False, init=False
    )

    def form(self, make: Callable[[EventBatch], bytes]) -> bytes:
        """What ``make`` makes of this batch; made once, however many ask."""
        form = self._forms.get(make)
        if form is None:
            form = self._forms[make] = make(self)
        return form

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Event, ...]: ...
    def __getitem__(self, index: int | slice) -> Event | tuple[Event, ...]:
        return self.events[index]


@attrs.define
class Logs:
    """What the feeds of a hub keep together."""

    size: int = 0


class Feed:
    """What happens to match one filter, for all who watch with it. Never waits for them."""

    def __init__(self, wanted: EventFilter, limit: int, logs: Logs | None = None) -> None:
        """``limit`` is how many events a watcher may lag behind; ``logs`` are those of all feeds."""
        self.wanted = wanted
        self.watchers: set[Watcher] = set()
        self.idle = trio.lowlevel.ParkingLot()  # the watchers that wait for news
        self.first = 0  # the number of the oldest batch in the log
        self.end = 0  # and of the one that comes next
        self._log: deque[EventBatch] = deque()
        self._limit = limit
        self._events = 0
        self._bytes = 0
        self._logs = logs or Logs()
        self._behind = 0  # watchers that have not taken all there is

    def add(self, after: int, *, lasting: bool = False) -> Watcher:
        """A watcher of what comes next; ``after`` is the last event that has passed."""
        watcher = Watcher(self, after, lasting=lasting)
        self.watchers.add(watcher)
        return watcher

    def remove(self, watcher: Watcher) -> None:
        """It watches no more."""
        self.watchers.remove(watcher)
        if watcher.next < self.end:
            self._caught_up()

    def offer(self, events: Sequence[Event]) -> bool:
        """New events, in order; whether any of them match. Whoever is idle is not woken yet."""
        batch = EventBatch(tuple(filter(self.wanted.matches, events)))
        if not batch:
            return False
        self._log.append(batch)
        self.end += 1
        self._events += len(batch)
        self._bytes += batch.size
        self._logs.size += batch.size
        self._behind = len(self.watchers)
        while len(self._log) > 1 and self._is_full():
            self._drop_oldest()
        return True

    def cut(self) -> None:
        """What comes next does not follow: all who watch are told that they lagged behind."""
        self.close()
        self.end += 1
        self.first = self.end
        self._behind = len(self.watchers)
        self.idle.unpark_all()

    def close(self) -> None:
        """Drop all there is."""
        while self._log:
            self._drop_oldest()

    def _is_full(self) -> bool:
        return (
            self._events > self._limit
            or self._bytes > LOG_BYTES_MAX
            or self._logs.size > LOGS_BYTES_MAX
        )

    def take(self, number: int) -> tuple[EventBatch, int]:
        """What there is from this number on, as much as a turn is for; and the number after it."""
        log = islice(self._log, number - self.first, None)
        taken = [next(log)]
        room = TURN_BYTES - taken[0].size
        for batch in log:
            room -= batch.size
            if room < 0:
                break
            taken.append(batch)
        number += len(taken)
        if number == self.end:
            self._caught_up()
        return (taken[0] if len(taken) == 1 else EventBatch(tuple(chain(*taken)))), number

    def _caught_up(self) -> None:
        self._behind -= 1
        while self._log and not self._behind:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        batch = self._log.popleft()
        self.first += 1
        self._events -= len(batch)
        self._bytes -= batch.size
        self._logs.size -= batch.size


class Watcher:
    """One who watches: a position in a feed."""

    def __init__(self, feed: Feed, after: int, *, lasting: bool) -> None:
        self.feed = feed
        self.lasting = lasting  # to the very end, while others end when the engine begins to stop
        self.after = after  # events up to here have not passed through the feed
        self.next = feed.end  # the number of the batch to take next
        self._ended = False
        self._last_seq = after

    def end(self) -> None:
        """No more will come."""
        self._ended = True
        self.feed.idle.unpark_all()

    async def receive(self) -> EventBatch:
        """What comes next, at least one event. Raises ``WatcherLagged`` if some were dropped,
        ``EngineStopping`` when the hub ends."""
        feed = self.feed
        if self.next < feed.end or self._ended:
            await trio.lowlevel.checkpoint()
        while self.next == feed.end and not self._ended:
            await feed.idle.park()
        if self.next < feed.first:
            raise WatcherLagged(self._last_seq)
        if self.next == feed.end:
            raise EngineStopping
        batch, self.next = feed.take(self.next)
        self._last_seq = batch.events[-1].seq
        return batch
