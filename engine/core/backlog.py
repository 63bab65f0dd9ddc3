"""The queue actor's memory: which waiting task is next.

The store holds every waiting task; a ``Backlog`` holds a bounded *window* of one lane: the first
few thousand that are ready, and the first few thousand that become ready by time. It never grows
with the queue, and it may forget: what it does not hold is read again from the store.

A destination that may be given nothing now is *set aside*: its ready tasks get a small window of
their own, a *side*, and the main window is filled with those of the others. So a million tasks of
a dead host hide nobody, and priority rules among all that may be given out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from typing import TypeAlias

from .destinations import Admission, OthersWait
from .entries import Entry, Page, Reading, Side, Wanted
from .suspects import LINES
from .task import TaskId
from .window import Key, Window, ready_key, scheduled_key

ASIDE_MAX = 1_000
"""Destinations that are set aside at once; statements name them all, so there must be an end to
it. What goes to a further one is handed out as if nothing were known against it; but suspects are
set aside beyond that, too."""

SIDES_READ_MAX = 50
"""Sides that are filled in one transaction."""

Admit: TypeAlias = Callable[[str, OthersWait], Admission]
"""What a destination may be given now."""

ADMITTED = (Admission.FREE, Admission.ROOM)
"""With these a destination may be given a task."""

_END: Key = (float("inf"), 0, "")


class Backlog:
    """The window of one lane. Pure: the time is an argument."""

    def __init__(self, size: int, side_size: int = 1) -> None:
        self._ready = Window(size)
        self._scheduled = Window(size)
        self._aside: dict[str, Window] = {}
        self._awake: dict[str, Window] = {}  # of those, the ones that must be asked for
        self._thin: dict[str, None] = {}  # and the ones that should be filled again
        self._side_size = side_size
        self._places: dict[TaskId, tuple[Entry, Window]] = {}
        self._reading: Wanted | None = None  # the refill that is under way
        self._gone: set[TaskId] = set()  # ids that left while a refill is under way
        self._late: dict[TaskId, Entry] = {}  # offers that came while a refill is under way
        self._missed = False  # whether the store has changed in ways nobody has told of
        self._stale: dict[str, None] = {}  # the same, of what is set aside
        self._now = datetime.min.replace(tzinfo=UTC)  # when it was last asked

    def __repr__(self) -> str:
        known = self._ready.complete and self._scheduled.complete and not self._missed
        more = "" if known else ", more in store"
        aside = f", {len(self._aside)} destinations aside" if self._aside else ""
        return f"<Backlog ready {len(self._ready)}, scheduled {len(self._scheduled)}{aside}{more}>"

    def __len__(self) -> int:
        return len(self._places)

    # -- what is told ------------------------------------------------------------------------

    def offer(self, entry: Entry, now: datetime) -> None:
        """A task waits, or waits differently than before."""
        self._drop(entry.task_id)
        if self._reading is not None:
            self._gone.discard(entry.task_id)
            self._late[entry.task_id] = entry
        self._add(entry, now)

    def remove(self, task_id: TaskId) -> None:
        """A task waits no longer."""
        self._drop(task_id)
        if self._reading is not None:
            self._gone.add(task_id)
            self._late.pop(task_id, None)

    def forget(self) -> None:
        """Announcements were missed: the store may hold what comes before all the window knows.
        A refill that is under way may have been read too early to make up for it."""
        self._missed = True
        self._stale.update(dict.fromkeys(self._aside))

    def wake(self, destinations: Iterable[str]) -> None:
        """These destinations, of which it was said that they are shut, may no longer be."""
        for destination in destinations:
            if destination in self._aside:
                self._awake[destination] = self._aside[destination]

    # -- what is next ------------------------------------------------------------------------

    def pick(self, now: datetime, admit: Admit | None = None) -> Entry | None:
        """The next ready task, which leaves the window; ``None`` if none is known. With ``admit``,
        the next one whose destination may be given one."""
        self._promote(now)
        best = self._first_aside(admit) if admit is not None and self._awake else None
        while (first := self._ready.first()) is not None and (best is None or first < best):
            destination = self._places[first[2]][0].destination
            if (
                admit is None
                or admit(destination, self.others_wait) in ADMITTED
                or (len(self._aside) >= ASIDE_MAX and destination not in LINES)
            ):
                best = first
                break
            self._set_aside(destination)
        if best is None:
            return None
        entry = self._places[best[2]][0]
        self.remove(entry.task_id)
        return entry

    def others_wait(self, destination: str) -> bool:
        """Whether tasks of other destinations than this one are ready, or may be. Suspects do not
        count: they wait for each other."""
        mine = {destination, *LINES}
        return (
            self._missed
            or not (self._ready.complete and self._scheduled.known)
            or any(_may_hold(side) for one, side in self._aside.items() if one not in mine)
            or any(self._places[key[2]][0].destination not in mine for key in self._ready)
        )

    def next_due(self) -> datetime | None:
        """When the next scheduled task becomes ready, as far as the window knows."""
        first = self._scheduled.first()
        return self._places[first[2]][0].due_at if first else None

    @property
    def holds_back(self) -> bool:
        """Whether ready tasks wait for their destination."""
        return any(map(_may_hold, self._aside.values()))

    @property
    def drained(self) -> bool:
        """Whether it is sure that no task is ready that may be given out, here or in the store. Of
        those set aside this speaks once ``pick`` has found nothing."""
        if self._missed or (self._reading is not None and self._reading.page):
            return False
        if any(map(self._may_hide, self._awake)):
            return False
        # Behind an incomplete window of scheduled tasks none is due before the last one held.
        return len(self._ready) == 0 and self._ready.complete and self._scheduled.known

    # -- reading the store -------------------------------------------------------------------

    def wanted(self, *, page: bool = False) -> Wanted | None:
        """What of the store should be read now, if anything; the ``page`` in any case."""
        if self._reading is not None:
            return None
        page = page or self._missed or self._ready.low or self._scheduled.low
        sides = [*self._stale, *(one for one in self._thin if one not in self._stale)]
        if not (page or sides):
            return None
        without = tuple(self._aside) if page else ()
        return Wanted(page, without, tuple(sides[:SIDES_READ_MAX]))

    def refill_started(self, wanted: Wanted) -> None:
        """The store is being read; note who comes and leaves meanwhile."""
        self._reading = wanted
        for destination in wanted.sides:
            self._stale.pop(destination, None)
        if wanted.page:
            self._missed = False

    def refill_failed(self) -> None:
        """The store could not be read; it still has to be."""
        self._reading, self._gone, self._late = None, set(), {}
        self.forget()  # also what was set aside meanwhile: the page would have shown it

    def refill(self, reading: Reading, now: datetime) -> None:
        """Take over what the store holds, except what left while it was read."""
        wanted = self._reading or Wanted(page=True)
        self._promote(now)
        if not self._scheduled.known:  # the store may have made ready what was not known here
            self._outdated(self._aside.keys() - set(wanted.sides))
        gone, self._gone = self._gone, set()
        late, self._late = self._late, {}
        self._reading = None
        if reading.page is not None:
            self._take_page(reading.page, wanted.without, gone)
        for side in reading.sides:
            if side.destination in self._aside:
                self._take_side(side, gone)
        for entry in late.values():
            self._drop(entry.task_id)
            self._add(entry, now)

    def _take_page(self, page: Page, without: Collection[str], gone: Collection[TaskId]) -> None:
        since = [one for one in self._aside if one not in without]  # those are in the page
        for destination in since:
            self._give_up(destination)
        self._places = {
            key[2]: self._places[key[2]] for side in self._aside.values() for key in side
        }
        for window, entries, complete, key_of in (
            (self._ready, page.ready, page.ready_complete, ready_key),
            (self._scheduled, page.scheduled, page.scheduled_complete, scheduled_key),
        ):
            kept = [entry for entry in entries if entry.task_id not in gone]
            for entry in kept:
                self._drop(entry.task_id)
                self._places[entry.task_id] = (entry, window)
            window.replace(map(key_of, kept), complete=complete)
        for destination in since:
            self._set_aside(destination)

    def _take_side(self, read: Side, gone: Collection[TaskId]) -> None:
        side = self._aside[read.destination]
        self._forget_all(key[2] for key in side)
        side.replace((), complete=False)
        kept = [entry for entry in read.ready if entry.task_id not in gone]
        for entry in kept:
            self._drop(entry.task_id)
            self._places[entry.task_id] = (entry, side)
        side.replace(map(ready_key, kept), complete=read.complete)
        self._note_thin(read.destination, side)

    # -- setting aside -----------------------------------------------------------------------

    def _may_hide(self, destination: str) -> bool:
        """Whether the store may hold a task for it that comes before all that its side shows."""
        being_read = self._reading is not None and destination in self._reading.sides
        return being_read or destination in self._stale or not self._aside[destination].known

    def _first_aside(self, admit: Admit) -> Key | None:
        """The first task of all destinations that are set aside and may be given one. Those that
        need not be aside any longer come back."""
        best: Key | None = None
        for destination, side in list(self._awake.items()):
            first = side.first()
            if first is not None and best is not None and first > best:
                continue
            admission = admit(destination, self.others_wait)
            if admission is Admission.SHUT:
                del self._awake[destination]
            elif admission is Admission.FULL:
                pass
            elif self._may_rejoin(destination, side, admission):
                self._rejoin(destination, side)
            elif first is not None:
                best = first
        return best

    def _set_aside(self, destination: str) -> None:
        side = self._aside[destination] = self._awake[destination] = Window(self._side_size)
        mine: list[Key] = []
        others: list[Key] = []
        for key in self._ready:
            entry, _ = self._places[key[2]]
            if entry.destination == destination:
                mine.append(key)
                self._places[key[2]] = (entry, side)
            else:
                others.append(key)
        self._forget_all(side.replace(mine, complete=self._ready.complete))
        self._ready.replace(others, complete=self._ready.complete)
        if self._missed:
            self._stale[destination] = None
        self._note_thin(destination, side)

    def _outdated(self, destinations: Iterable[str]) -> None:
        self._stale.update((one, None) for one in self._aside if one in destinations)

    def _note_thin(self, destination: str, side: Window) -> None:
        if side.low:
            self._thin[destination] = None
        else:
            self._thin.pop(destination, None)

    def _may_rejoin(self, destination: str, side: Window, admission: Admission) -> bool:
        if self._reading is not None or destination in self._stale:
            return False
        nothing_waits = side.complete and not side
        return nothing_waits or (admission is Admission.FREE and side.known and self._ready.known)

    def _rejoin(self, destination: str, side: Window) -> None:
        """Back into the main window, as far as both are known without a gap."""
        self._give_up(destination)
        if not side:  # there is nothing else to it, and with many dead hosts it happens often
            return
        for key in side:
            self._places[key[2]] = (self._places[key[2]][0], self._ready)
        both = (self._ready, side)
        ends = [last for one in both if not one.complete and (last := one.last()) is not None]
        end = min(ends, default=_END)
        keys = [*self._ready, *side]
        self._forget_all(key[2] for key in keys if key > end)
        known = [key for key in keys if key <= end]
        complete = self._ready.complete and side.complete
        self._forget_all(self._ready.replace(known, complete=complete))

    def _give_up(self, destination: str) -> None:
        del self._aside[destination]
        for notes in (self._awake, self._thin, self._stale):
            notes.pop(destination, None)

    # -- windows -----------------------------------------------------------------------------

    def _forget_all(self, task_ids: Iterable[TaskId]) -> None:
        for task_id in task_ids:
            del self._places[task_id]

    def _add(self, entry: Entry, now: datetime) -> None:
        if entry.due_at <= now:
            window = self._aside.get(entry.destination, self._ready)
            self._put(entry, ready_key(entry), window)
        else:
            self._put(entry, scheduled_key(entry), self._scheduled)

    def _put(self, entry: Entry, key: Key, window: Window) -> None:
        forgotten = window.add(key)
        if forgotten != entry.task_id:
            self._places[entry.task_id] = (entry, window)
            if forgotten is not None:
                del self._places[forgotten]

    def _drop(self, task_id: TaskId) -> None:
        place = self._places.pop(task_id, None)
        if place is not None:
            entry, window = place
            key_of = scheduled_key if window is self._scheduled else ready_key
            window.discard(key_of(entry))
            if window.low and window is self._aside.get(entry.destination):
                self._thin[entry.destination] = None

    def _promote(self, now: datetime) -> None:
        if now < self._now:  # the clock was set back: what was due here may not be so in the store
            self.forget()
        self._now = now
        while (first := self._scheduled.first()) and self._places[first[2]][0].due_at <= now:
            entry = self._places[first[2]][0]
            self._drop(entry.task_id)
            if self._reading is not None and not self._reading.shows(entry.destination):
                self._late[entry.task_id] = entry
            self._add(entry, now)


def _may_hold(side: Window) -> bool:
    """Whether ready tasks are in it, or may be in the store."""
    return len(side) > 0 or not side.complete
