"""Watching: what was missed is read from the store, what happens comes from the status hub."""

from __future__ import annotations

from engine.errors import CursorExpired, WatcherLagged
from engine.ports.store import Store

from .feed import EventBatch, EventFilter, Watcher
from .status import StatusHub


class Watch:
    """A stream of events: first what was missed, then what happens, without gap or repetition."""

    def __init__(
        self,
        hub: StatusHub,
        store: Store,
        wanted: EventFilter,
        after: int | None,
        *,
        page_size: int,
        lasting: bool,
    ) -> None:
        self._hub = hub
        self._store = store
        self._page_size = page_size
        self._wanted = wanted
        self._lasting = lasting
        self._live: Watcher | None = None
        if after is None:
            self._live = hub.add(wanted, lasting=lasting)
            after = self._live.after
        self.position = after  # every wanted event up to here has been given out

    async def receive(self) -> EventBatch:
        """The next events, at least one. Raises ``CursorExpired`` if the events to resume from
        are gone, ``WatcherLagged`` if the caller was too slow, ``EngineStopping`` at the end."""
        batch = EventBatch(())
        while not batch:
            if self._live is None or self.position < self._live.after:
                batch = await self._missed()
            else:
                batch = await self._next(self._live)
        return batch

    async def _next(self, live: Watcher) -> EventBatch:
        """What happens. The store may have shown us more than the hub had passed on when it added
        us: of that nothing is given out again."""
        try:
            batch = await live.receive()
        except WatcherLagged:
            raise WatcherLagged(self.position) from None
        known, self.position = self.position, max(self.position, batch.events[-1].seq)
        if batch.events[0].seq > known:
            return batch
        return EventBatch(tuple(event for event in batch if event.seq > known))

    async def _missed(self) -> EventBatch:
        """A page of what was missed. Goes live as soon as the rest is less than a page; what
        comes between the page and going live is the next page."""
        page = await self._store.events(self.position, self._page_size)
        if not page or page[0].seq != self.position + 1:
            await check_cursor(self._store, self.position)
        if self._live is None and len(page) < self._page_size:
            self._live = self._hub.add(self._wanted, lasting=self._lasting)
        if page:
            self.position = page[-1].seq
        return EventBatch(tuple(filter(self._wanted.matches, page)))

    def close(self) -> None:
        """Watch no more."""
        if self._live is not None:
            self._hub.remove(self._live)


async def check_cursor(store: Store, after: int) -> None:
    """Raises ``CursorExpired`` unless every event after ``after`` is still kept."""
    oldest, newest = await store.event_range()
    if not oldest <= after + 1 <= newest + 1:
        raise CursorExpired(after, oldest, newest)
