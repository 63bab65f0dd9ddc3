"""Where callbacks go, and how much may go there now. Pure: the time is an argument, in monotonic
seconds.

A *destination* is scheme, host and port of a callback's URL. Two things keep a dead one from
harming the others. Its breaker stops calls that would fail. And while it does not answer well it
is held to ``unhealthy_limit`` attempts at once, so that the other executors stay free. It is held

* when most of its recent attempts failed or took longer than ``slow_s``. Those that have been
  running for longer count at once: a host that hangs must be found out before its attempts end.
* when it has not given one good answer in the last ``breaker_window_s`` while others are served.
  Nobody can know yet whether it is dead. Alone it may use all executors: it is in nobody's way.

Tasks that may be what ends the process wait in lines of their own (``suspects``), of which nothing
else is known.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Hashable
from heapq import heappop, heappush, nsmallest
from typing import TypeAlias

import attrs

from engine.config import EngineConfig

from .breaker import BreakerPolicy, BreakerState, Ending
from .destination import Report, Track, Verdict
from .suspects import LINES, Suspects

KNOWN_MAX = 10_000
"""Destinations that are remembered; of more than that, those are forgotten that rested longest."""

LOOKED_AT_MAX = 100
"""Of those, how many are looked at to find one that may be forgotten."""

SHOWN_MAX = 20

OthersWait: TypeAlias = Callable[[str], bool]
"""Whether tasks of other destinations than this one are ready, or may be."""


class Admission(enum.Enum):
    """What a destination may be given."""

    FREE = enum.auto()  # whatever there is: it answers well
    ROOM = enum.auto()  # another attempt now; it has to be asked again for the next
    FULL = enum.auto()  # nothing now
    SHUT = enum.auto()  # nothing, until ``changed`` names it


@attrs.frozen(kw_only=True)
class BreakerHold:
    """A destination is given nothing, because its breaker is not closed."""

    state: BreakerState
    for_s: float  # until an attempt may begin, if none ends before; 0: as soon as one can
    failures: int  # of so many ``attempts``, when it opened
    attempts: int
    last_error: str | None


@attrs.frozen(kw_only=True)
class LimitHold:
    """A destination is given nothing, because it has all the attempts that it is held to."""

    limit: int
    running: int
    slow_s: float | None  # it has answered badly, or took longer than that; None: not that
    unproven_s: float  # else it has not answered well in so long


@attrs.frozen
class SuspectHold:
    """A suspect is not handed out, because of those that run or because the process is too young."""

    for_s: float  # until any may run
    running: int


Hold: TypeAlias = BreakerHold | LimitHold | SuspectHold


@attrs.frozen(kw_only=True)
class DestinationFigures:
    """How one destination does. Attempts and failures are those of the last minute or so."""

    destination: str
    breaker: BreakerState
    limit: int | None  # attempts at once it is held to
    in_flight: int
    attempts: int
    failures: int
    slow: int  # of its recent attempts and those in flight
    open_for_s: float | None
    last_error: str | None


@attrs.frozen(kw_only=True)
class AllFigures:
    """How the destinations do: the worst of them, and all in numbers."""

    worst: tuple[DestinationFigures, ...]
    known: int
    open: int
    half_open: int
    held: int
    openings: int  # of all breakers, since the start


class Destinations:
    """All destinations. ``since``: when the engine was opened. Whoever hands a task out says where it
    goes (``started``) and from which seat: a number or object that has one attempt at a time."""

    def __init__(self, config: EngineConfig, since: float, known_max: int = KNOWN_MAX) -> None:
        self._known_max = known_max
        self._policy = BreakerPolicy(
            config.breaker_ratio,
            config.breaker_window_s,
            config.breaker_attempts_min,
            config.breaker_open_s,
        )
        self._slow_s = config.slow_s
        # A small pool must be protected as well.
        self._limit = min(config.unhealthy_limit, max(1, config.executors // 2))
        self._tracks: OrderedDict[str, Track] = OrderedDict()  # who was called last stands last
        self._seats: dict[Hashable, tuple[str, int]] = {}  # destination, and its breaker's ticket
        self._suspects = Suspects(since)
        # When a breaker, or a line of suspects, admits one; a heap.
        self._openings_due = [(self._suspects.from_s, line) for line in sorted(LINES)]
        self._changed: dict[str, None] = {}
        self._last = ""  # the destination that was called last, when, and when another one was
        self._last_at = self._other_at = float("-inf")
        self._openings = 0

    def __repr__(self) -> str:
        return f"<Destinations {len(self._tracks)} known, {self.in_flight} attempts>"

    def __len__(self) -> int:
        return len(self._tracks)

    @property
    def in_flight(self) -> int:
        """Attempts that were handed out and have not ended."""
        return len(self._seats) + len(self._suspects)

    # -- attempts ------------------------------------------------------------------------------

    def started(self, seat: Hashable, destination: str, now: float) -> None:
        """A task that goes there was handed out."""
        self.ended(seat, now, None)
        if destination in LINES:
            self._suspects.started(seat, destination)
            return
        track = self._tracks.get(destination)
        if track is None:
            self._make_room()
            track = self._tracks[destination] = Track(self._policy)
        self._tracks.move_to_end(destination)
        track.running[seat] = now
        self._seats[seat] = (destination, track.breaker.begin(now))
        self._note_breaker(destination, track)
        if destination != self._last:
            self._last, self._other_at = destination, self._last_at
        self._last_at = now

    def ended(self, seat: Hashable, now: float, report: Report | None) -> None:
        """The seat is free again. No report: nothing was sent from it, or nobody can tell."""
        if self._suspects.ended(seat):
            self._changed.update(dict.fromkeys(LINES))
            return
        destination, ticket = self._seats.pop(seat, ("", 0))
        track = self._tracks.get(destination)
        if track is None or track.running.pop(seat, None) is None:
            return
        ending = report.ending if report is not None else Ending.NEUTRAL
        if track.breaker.end(ticket, now, ending):
            self._openings += 1
        self._changed[destination] = None
        self._note_breaker(destination, track)
        if report is None or ending is Ending.NEUTRAL:
            return
        track.learn(report, now, self._slow_s)
        track.judge(now, self._policy, self._slow_s)

    def _make_room(self) -> None:
        """Forget one if there are too many. Who is busy or in trouble is spared, unless so many
        are that nobody else is found soon: a breaker may be open that nobody asks for any more."""
        if len(self._tracks) < self._known_max:
            return
        for _ in range(min(len(self._tracks), LOOKED_AT_MAX)):
            destination, track = next(iter(self._tracks.items()))
            if not track.running and track.breaker.closed:
                break
            self._tracks.move_to_end(destination)
        destination, _ = self._tracks.popitem(last=False)
        self._changed[destination] = None

    def _note_breaker(self, destination: str, track: Track) -> None:
        if not track.breaker.closed:
            heappush(self._openings_due, (track.breaker.admits_at(), destination))

    # -- judging -------------------------------------------------------------------------------

    def admission(self, destination: str, others_wait: OthersWait, now: float) -> Admission:
        """Whether a task may be handed out that goes there."""
        if destination in LINES:
            may_run = self._suspects.may_run(destination, now)
            return Admission.ROOM if may_run else Admission.SHUT
        track = self._tracks.get(destination)
        if track is None:
            return Admission.ROOM
        full = len(track.running) >= self._limit
        if not track.breaker.closed:
            if now < track.breaker.admits_at():
                return Admission.SHUT
        elif not self._answers_badly(track, now):
            if self._proven(track, now):
                return Admission.FREE
            # Looking for others takes a while; do it only if they may have to be protected.
            full = full and self._others_are_served(destination, track, others_wait, now)
        return Admission.FULL if full else Admission.ROOM

    def hold(self, destination: str, others_wait: OthersWait, now: float) -> Hold | None:
        """Why a task that goes there is not handed out now, if that is so."""
        if destination in LINES:
            may_run = self._suspects.may_run(destination, now)
            for_s = max(0.0, self._suspects.from_s - now)
            return None if may_run else SuspectHold(for_s, len(self._suspects))
        track = self._tracks.get(destination)
        if track is None:
            return None
        if self.admission(destination, others_wait, now) in (Admission.FREE, Admission.ROOM):
            return None
        breaker = track.breaker
        if breaker.closed:
            return LimitHold(
                limit=self._limit,
                running=len(track.running),
                slow_s=self._slow_s if track.held else None,
                unproven_s=self._policy.window_s,
            )
        failures, attempts = breaker.opened_by
        return BreakerHold(
            state=breaker.state(now),
            for_s=max(0.0, breaker.admits_at() - now),
            failures=failures,
            attempts=attempts,
            last_error=track.last_error,
        )

    def changed(self, now: float) -> list[str]:
        """Of which destinations something has changed since this was last asked."""
        while self._openings_due and self._openings_due[0][0] <= now:
            self._changed[heappop(self._openings_due)[1]] = None
        changed, self._changed = list(self._changed), {}
        return changed

    def next_change(self, now: float) -> float | None:
        """In how many seconds the next breaker, or line, admits an attempt, by time alone."""
        return self._openings_due[0][0] - now if self._openings_due else None

    def figures(self, now: float) -> AllFigures:
        """How they do."""
        every = [
            self._figures(destination, track, now) for destination, track in self._tracks.items()
        ]
        states = [one.breaker for one in every]
        return AllFigures(
            worst=tuple(nsmallest(SHOWN_MAX, every, key=_by_trouble)),
            known=len(every),
            open=states.count(BreakerState.OPEN),
            half_open=states.count(BreakerState.HALF_OPEN),
            held=sum(one.limit is not None for one in every),
            openings=self._openings,
        )

    def _figures(self, destination: str, track: Track, now: float) -> DestinationFigures:
        breaker, bad = track.breaker, self._answers_badly(track, now)
        proven = not track.running or self._proven(track, now)
        limited = bad or not breaker.closed
        if not (limited or proven):
            limited = self._others_are_served(destination, track, lambda _: False, now)
        breaker.recent.forget_old(now)
        state = breaker.state(now)
        return DestinationFigures(
            destination=destination,
            breaker=state,
            limit=self._limit if limited else None,
            in_flight=len(track.running),
            attempts=breaker.recent.attempts,
            failures=breaker.recent.failures,
            slow=track.recent.count(Verdict.SLOW) + track.hanging(now, self._slow_s),
            open_for_s=breaker.admits_at() - now if state is BreakerState.OPEN else None,
            last_error=track.last_error,
        )

    def _answers_badly(self, track: Track, now: float) -> bool:
        track.judge(now, self._policy, self._slow_s)
        return track.held

    def _proven(self, track: Track, now: float) -> bool:
        """Whether it has answered well of late."""
        return track.good_at >= now - self._policy.window_s

    def _others_are_served(
        self, destination: str, track: Track, others_wait: OthersWait, now: float
    ) -> bool:
        """Whether others run, ran of late, or are ready to run."""
        other_at = self._last_at if destination != self._last else self._other_at
        others_run = self.in_flight > len(track.running)
        of_late = other_at >= now - self._policy.window_s
        return others_run or of_late or others_wait(destination)


_TROUBLE = {BreakerState.OPEN: 0, BreakerState.HALF_OPEN: 1, BreakerState.CLOSED: 2}


def _by_trouble(one: DestinationFigures) -> tuple[int, bool, int, int, str]:
    return (
        _TROUBLE[one.breaker],
        one.limit is None,
        -one.failures,
        -one.in_flight,
        one.destination,
    )
