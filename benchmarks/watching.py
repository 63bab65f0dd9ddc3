"""What many watchers of one stream receive, checked byte for byte.

All who watch with the same filter get the same frames. So one watcher's frames are parsed, the bytes
of all others are compared with them, and only what differs is parsed too: a thousand watchers of
500 events a second are too much for reading each of 500,000 messages.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, TypeAlias

import attrs

TEXT: Final = 1
CLOSE: Final = 8
PING: Final = 9
Arrival: TypeAlias = tuple[int, int, float]
"""Events of the reference by number, from the first to before the second, and when they came."""

BUCKET_S: Final = 0.0005
BUCKETS: Final = 120_000  # a minute; what took longer counts as that


class ProtocolError(Exception):
    """The server sent what is no frame of a websocket's server."""


@attrs.frozen
class Frame:
    """One whole frame. ``size`` is what it takes with its head."""

    opcode: int
    payload: bytes
    size: int


def next_frame(data: bytes | bytearray, start: int = 0) -> Frame | None:
    """The frame that begins at ``start``; None if it is not complete."""
    if len(data) < start + 2:
        return None
    first, length, head = data[start], data[start + 1], 2
    if first & 0x70 or length & 0x80 or not first & 0x80:
        raise ProtocolError("a frame that is masked, compressed or a fragment")
    if length >= 126:
        head = 4 if length == 126 else 10
        if len(data) < start + head:
            return None
        length = int.from_bytes(data[start + 2 : start + head], "big")
    end = start + head + length
    if len(data) < end:
        return None
    return Frame(first & 0x0F, bytes(data[start + head : end]), head + length)


class Lags:
    """How long events were on their way, counted in buckets: there are millions of them."""

    def __init__(self) -> None:
        self._buckets = [0] * (BUCKETS + 1)
        self.total = 0
        self.most_s = 0.0

    def add(self, seconds: float) -> None:
        self._buckets[max(0, min(int(seconds / BUCKET_S), BUCKETS))] += 1
        self.total += 1
        self.most_s = max(self.most_s, seconds)

    def percentile_s(self, percent: float) -> float:
        """Nearest rank, rounded up to the end of its bucket."""
        rank, seen = max(1, -int(-self.total * percent // 100)), 0
        for number, count in enumerate(self._buckets):
            seen += count
            if seen >= rank:
                return (number + 1) * BUCKET_S
        raise ValueError("nothing was measured")


@attrs.define
class Seen:
    """What one watcher got: each event once and in order, or not."""

    last_seq: int = -1  # -1: not subscribed yet
    events: int = 0
    missed: int = 0  # numbers that were passed over
    repeated: int = 0  # numbers that were not greater than the one before
    closed: str = ""  # why the server ended it, if it did

    def note(self, seq: int) -> None:
        """An event."""
        if seq <= self.last_seq:
            self.repeated += 1
        else:
            self.note_many(seq, 1)

    def note_many(self, seq: int, events: int) -> None:
        """So many events, of which the last has this number."""
        self.missed += seq - self.last_seq - events
        self.last_seq, self.events = seq, self.events + events

    def event_of(self, frame: Frame) -> dict[str, Any] | None:
        """The event in a frame; what else a server says is noted."""
        if frame.opcode == CLOSE:
            self.closed = frame.payload[2:].decode(errors="replace") or "closed"
        if frame.opcode != TEXT:
            return None
        message: dict[str, Any] = json.loads(frame.payload)
        if "subscribed" in message:
            self.last_seq = message["seq"]
        return message if "to" in message else None


class Reference:
    """The events as one watcher got them: their bytes, where each ends, and when it happened."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.first_seq = -1  # of the first event that can come
        self.bytes = bytearray()
        self.ends: list[int] = []
        self.seqs: list[int] = []
        self.moments: list[float] = []
        self.arrivals: list[Arrival] = []
        self._rest = bytearray()

    def feed(self, data: bytes, now: float) -> list[Frame]:
        """Take what has come; the frames that want an answer."""
        self._rest += data
        begin, before, pings = 0, len(self.ends), []
        while (frame := next_frame(self._rest, begin)) is not None:
            event = self.seen.event_of(frame)
            if event is not None:
                self._keep(event, self._rest[begin : begin + frame.size])
            elif frame.opcode == PING:
                pings.append(frame)
            elif self.first_seq < 0 <= self.seen.last_seq:
                self.first_seq = self.seen.last_seq + 1
            begin += frame.size
        del self._rest[:begin]
        if len(self.ends) > before:
            self.arrivals.append((before, len(self.ends), now))
        return pings

    def _keep(self, event: dict[str, Any], raw: bytearray) -> None:
        self.seen.note(event["seq"])
        self.bytes += raw
        self.ends.append(len(self.bytes))
        self.seqs.append(event["seq"])
        self.moments.append(datetime.fromisoformat(event["at"]).timestamp())

    def number_of(self, seq: int) -> int:
        """How many events it had before this one."""
        return bisect_left(self.seqs, seq)

    def add_lags(self, arrivals: Iterable[Arrival], lags: Lags) -> None:
        """How long after they happened events arrived."""
        for first, last, now in arrivals:
            for number in range(first, last):
                lags.add(now - self.moments[number])


class Follower:
    """Any other watcher, compared with the reference."""

    def __init__(self, reference: Reference) -> None:
        self.seen = Seen()
        self.in_step = True  # all its events are those of the reference, byte for byte
        self.arrivals: list[Arrival] = []
        self._reference = reference
        self._offset = -1  # how far its bytes are the reference's: the end of an event
        self._rest = b""  # what came after that
        self._fed_at = 0.0

    def feed(self, data: bytes, now: float) -> list[Frame]:
        """Take what has come; the frames that want an answer."""
        pings = self._compare()  # the reference may know by now what came before
        self._rest, self._fed_at = self._rest + data if self._rest else data, now
        return pings + self._compare()

    def finish(self) -> Seen:
        """What it got; nothing more will come, here or at the reference."""
        self._compare(waits=False)
        return self.seen

    def _compare(self, *, waits: bool = True) -> list[Frame]:
        pings: list[Frame] = []
        while self._rest and not self._take_known(waits=waits):
            frame = next_frame(self._rest)
            if frame is None:
                break
            if frame.opcode == PING:
                pings.append(frame)
            self._take(frame)
        return pings

    def _take_known(self, *, waits: bool) -> bool:
        """Take the events that are the reference's next. Whether the rest may follow there yet."""
        known = self._reference.bytes
        if self.seen.last_seq < 0 or not self._is_in_step():
            return False
        if self._offset < 0:
            return waits
        size = min(len(self._rest), len(known) - self._offset)
        same = self._rest if size == len(self._rest) else self._rest[:size]
        if not known.startswith(same, self._offset):
            return False
        self._advance(self._offset + size)
        if not self._rest:
            return True
        more = len(known) > self._offset  # then what is left is part of the reference's next
        return more or (waits and self._rest[0] & 0x0F == TEXT)

    def _is_in_step(self) -> bool:
        """Finds, as soon as it can be known, where in the reference's stream its first event is."""
        reference, seq = self._reference, self.seen.last_seq
        if self._offset < 0 and reference.seen.last_seq >= seq:
            number = reference.number_of(seq + 1)
            self._offset = reference.ends[number - 1] if number else 0
            self.in_step = reference.first_seq <= seq + 1
        return self.in_step

    def _advance(self, offset: int) -> None:
        """Up to the last event that ends there or before."""
        ends = self._reference.ends
        first, last = bisect_right(ends, self._offset), bisect_right(ends, offset)
        if last > first:
            self.seen.note_many(self._reference.seqs[last - 1], last - first)
            self.arrivals.append((first, last, self._fed_at))
            self._rest = self._rest[ends[last - 1] - self._offset :]
            self._offset = ends[last - 1]

    def _take(self, frame: Frame) -> None:
        """One frame, read."""
        reference = self._reference
        raw, self._rest = self._rest[: frame.size], self._rest[frame.size :]
        if self.in_step and self._offset >= 0 and reference.bytes.startswith(raw, self._offset):
            self._rest = raw + self._rest
            self._advance(self._offset + frame.size)
            return
        event = self.seen.event_of(frame)
        if event is None:
            return
        self.in_step = False
        self.seen.note(event["seq"])
        number = reference.number_of(event["seq"])
        if reference.seqs[number : number + 1] == [event["seq"]]:
            self.arrivals.append((number, number + 1, self._fed_at))
