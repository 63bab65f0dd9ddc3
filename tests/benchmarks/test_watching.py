"""Streams of many watchers: what is the same is compared, what is not is found."""

from __future__ import annotations

import json
import random
from itertools import pairwise

import pytest

from benchmarks.watch_client import Crowd, summary
from benchmarks.watching import (
    CLOSE,
    PING,
    TEXT,
    Follower,
    Lags,
    ProtocolError,
    Reference,
    next_frame,
)

HEARTBEAT: dict[str, object] = {"heartbeat": True, "seq": 3}


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes([0x80 | opcode, size]) + payload
    if size < 1 << 16:
        return bytes([0x80 | opcode, 126]) + size.to_bytes(2, "big") + payload
    return bytes([0x80 | opcode, 127]) + size.to_bytes(8, "big") + payload


def said(message: dict[str, object]) -> bytes:
    return frame(json.dumps(message).encode())


def hello(seq: int) -> bytes:
    return said({"subscribed": True, "seq": seq})


def event(seq: int, name: str = "a task", size: int = 150) -> bytes:
    at = f"2026-01-02T03:04:{seq:02}.000000Z"
    return said({"seq": seq, "at": at, "name": name, "to": "Queued", "reason": "x" * size})


def events(*seqs: int) -> bytes:
    return b"".join(map(event, seqs))


def reference_of(*seqs: int, start: int = 0) -> Reference:
    reference = Reference()
    reference.feed(hello(start) + events(*seqs), 0.0)
    return reference


def seen_by(reference: Reference, *chunks: bytes):
    follower = Follower(reference)
    for moment, chunk in enumerate(chunks):
        follower.feed(chunk, float(moment))
    seen = follower.finish()
    return follower, (seen.last_seq, seen.events, seen.missed, seen.repeated)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_frame_is_cut_out_whole_or_not_at_all(size):
    raw = frame(b"p" * size)
    found = next_frame(b"before" + raw + b"after", 6)
    assert found is not None
    assert (found.opcode, found.payload, found.size) == (TEXT, b"p" * size, len(raw))
    assert all(next_frame(raw[:cut]) is None for cut in (0, 1, len(raw) - 1))


@pytest.mark.parametrize("raw", [b"\x81\x80", b"\xc1\x00", b"\x01\x00"])
def test_frames_that_no_such_server_sends_are_refused(raw):
    with pytest.raises(ProtocolError):
        next_frame(raw)


def test_the_same_bytes_are_the_same_events_however_they_are_cut():
    reference, whole = reference_of(*range(1, 40)), hello(0) + events(*range(1, 40))
    chance = random.Random(1)
    for _ in range(200):
        cuts = sorted({0, len(whole), *(chance.randrange(len(whole)) for _ in range(12))})
        follower, seen = seen_by(reference, *(whole[a:b] for a, b in pairwise(cuts)))
        assert seen == (39, 39, 0, 0)
        assert follower.in_step
        assert sum(last - first for first, last, _ in follower.arrivals) == 39


def test_who_is_ahead_of_the_reference_is_compared_when_that_has_caught_up():
    reference = reference_of()
    follower = Follower(reference)
    follower.feed(hello(0) + events(1, 2), 5.0)
    assert follower.arrivals == []
    reference.feed(events(1, 2, 3), 6.0)
    follower.feed(events(3), 7.0)
    assert follower.finish().events == 3
    assert follower.in_step
    assert follower.arrivals == [(0, 2, 5.0), (2, 3, 7.0)]


def test_who_came_later_begins_in_the_middle():
    follower, seen = seen_by(reference_of(1, 2, 3, 4), hello(2), events(3, 4))
    assert seen == (4, 2, 0, 0)
    assert follower.in_step
    assert follower.arrivals == [(2, 4, 1.0)]


def test_who_came_later_than_the_reference_knows_waits_for_it():
    reference = reference_of(1)
    follower = Follower(reference)
    follower.feed(hello(2), 0.0)
    follower.feed(event(3), 1.0)
    reference.feed(events(2, 3), 2.0)
    assert (follower.finish().events, follower.in_step) == (1, True)


def test_who_came_before_the_reference_is_read():
    follower, seen = seen_by(reference_of(3, 4, start=2), hello(0), events(1, 2, 3, 4))
    assert seen == (4, 4, 0, 0)
    assert not follower.in_step


def test_heartbeats_and_pings_may_stand_between_events():
    reference = reference_of(1, 2, 3)
    follower = Follower(reference)
    ping = frame(b"are you there", PING)
    first = follower.feed(hello(0) + event(1) + said(HEARTBEAT) + event(2)[:7], 0.0)
    pings = [*first, *follower.feed(event(2)[7:] + ping + event(3), 1.0)]
    assert [found.payload for found in pings] == [b"are you there"]
    assert (follower.finish().events, follower.in_step) == (3, True)


def test_a_ping_is_not_kept_waiting_for_the_reference():
    follower = Follower(reference_of())
    follower.feed(hello(0), 0.0)
    assert [found.opcode for found in follower.feed(frame(b"", PING), 1.0)] == [PING]


@pytest.mark.parametrize(
    ("got", "found"),
    [
        ((1, 2, 4, 5), (5, 4, 1, 0)),
        ((1, 2, 2, 3, 4, 5), (5, 5, 0, 1)),
        ((1, 2, 3), (3, 3, 0, 0)),
        ((2, 1, 3, 4, 5), (5, 4, 1, 1)),
        ((4, 5), (5, 2, 3, 0)),
    ],
    ids=["gap", "twice", "end missing", "out of order", "beginning missing"],
)
def test_what_is_missing_or_repeated_is_counted(got, found):
    follower, seen = seen_by(reference_of(1, 2, 3, 4, 5), hello(0), events(*got))
    assert seen == found
    assert follower.in_step == (got == (1, 2, 3))


def test_a_gap_that_the_reference_has_too_is_counted():
    _, seen = seen_by(reference_of(1, 2, 5), hello(0), events(1, 2, 5))
    assert seen == (5, 3, 2, 0)


def test_events_that_the_reference_never_got_are_read():
    follower, seen = seen_by(reference_of(1), hello(0), events(1, 2, 3))
    assert seen == (3, 3, 0, 0)
    assert not follower.in_step


def test_other_content_under_the_same_number_is_read():
    follower, seen = seen_by(
        reference_of(1, 2, 3), hello(0), event(1) + event(2, "another") + event(3)
    )
    assert seen == (3, 3, 0, 0)
    assert not follower.in_step


def test_why_the_server_ended_it_is_kept():
    goodbye = frame((4008).to_bytes(2, "big") + b"too slow", CLOSE)
    follower, _ = seen_by(reference_of(1, 2), hello(0), event(1) + goodbye)
    assert follower.seen.closed == "too slow"


def test_a_tail_that_nobody_was_sent_is_missing():
    crowd = Crowd("http://127.0.0.1:9", 2)
    for feed in (crowd.reference.feed, crowd.followers[0].feed):
        feed(hello(2) + events(3, 4), 0.0)
    told = 4  # the server passed on no more either
    assert (crowd.newest(told, events=2), crowd.newest(5, events=2)) == (4, 5)
    found = summary(crowd, crowd.newest(told, events=2))
    assert (found["events"], found["missed"], found["whole"]) == (2, 0, 2)
    found = summary(crowd, crowd.newest(told, events=3))
    assert (found["events"], found["missed"], found["whole"]) == (2, 2, 0)


def test_lags_are_counted_for_every_event():
    reference, lags = reference_of(1, 2), Lags()
    moment = reference.moments[1]
    reference.add_lags([(0, 2, moment + 0.25)], lags)
    assert reference.moments[1] - reference.moments[0] == 1.0
    assert (lags.total, lags.most_s) == (2, 1.25)
    assert lags.percentile_s(50) == pytest.approx(0.25, abs=0.001)
    assert lags.percentile_s(99) == pytest.approx(1.25, abs=0.001)


def test_without_events_there_is_no_lag():
    with pytest.raises(ValueError, match="nothing was measured"):
        Lags().percentile_s(50)
