"""No bar is held where nothing happened: each check wants what it is about to have been there."""

from __future__ import annotations

import socket
from collections import Counter
from math import nan
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from benchmarks.load import request
from benchmarks.stack import Running, Stack
from tests.attack import descriptors, herd, loris, overload, storm, watchers
from tests.attack.overload_driver import Loaded
from tests.attack.target import Target
from tests.support.raw_server import Connection, answer, once, raw_server

# --- overload

LOADED = Loaded(
    began=0.0, ended=60.0, accepted=30_000, refused={"status 503": 60_000}, unanswered=0, lost=0,
    duplicates=0, stalled=None, accepted_p95_s=0.2, behind_p95_s=0.0,
)  # fmt: skip
OVERLOADED = overload.Overloaded(
    capacity=500.0, seconds=60.0, loaded=LOADED,
    probed=overload.Probed(answers=[(1.0, 0.1, 503)]),
    grown_mib=1.0, left=0, completed=30_000, expected=30_000,
)  # fmt: skip


def test_an_overload_that_is_borne_is_held() -> None:
    assert (OVERLOADED.broken(), OVERLOADED.slow()) == ([], [])


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"accepted": 0, "refused": {"status 503": 90_000}}, "nothing was accepted"),
        ({"accepted": 14_000, "refused": {"status 503": 76_000}}, "too little accepted"),
        ({"accepted": 30_000, "refused": {"status 503": 50_000}}, "too little offered"),
        ({"ended": 600.0}, "length"),
        ({"accepted_p95_s": nan}, "p95"),
        ({"accepted_p95_s": 0.6}, "p95"),
    ],
)
def test_what_was_no_overload_is_missed(changed: dict[str, Any], found: str) -> None:
    done = attrs.evolve(OVERLOADED, loaded=attrs.evolve(LOADED, **changed))
    assert found in [*done.broken(), *done.slow()]


# --- slow-loris

SIZE = loris.Size(headers=10, bodies=5, idle=5, seconds=2.0)


def loris_of(took_s: float, asked: int) -> loris.Seen:
    seen = loris.Seen(during_s=[took_s] * asked)
    seen.lived_s.update({kind: [5.0] for kind in ("header", "body", "idle")})
    return seen


def test_connections_that_are_held_and_an_api_that_is_asked_hold_the_bar() -> None:
    assert loris._verdict(SIZE, loris_of(0.01, 200), 20, "").held


def test_an_api_that_was_not_asked_is_not_quick() -> None:
    for asked, late in ((100, ["the API was hardly asked"]), (0, None)):
        came = loris._verdict(SIZE, loris_of(0.01, asked), 20, "")
        assert not came.held
        assert late in (None, came.late)


def test_connections_that_were_not_there_are_missed() -> None:
    assert loris._verdict(SIZE, loris_of(0.01, 200), 15, "").misses == [
        "only 15 connections at once"
    ]
    seen = loris_of(0.01, 200)
    seen.lived_s["idle"].clear()
    seen.not_let_in = 3
    assert loris._verdict(SIZE, seen, 20, "").misses == [
        "connections were not closed in time", "3 connections were not let in",
    ]  # fmt: skip


async def test_a_connection_that_is_refused_was_not_closed_soon() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        seen, lived_s = loris.Seen(), list[float]()
        with trio.move_on_after(0.2):
            port = nobody.getsockname()[1]
            await loris._hold(port, b"", 0.0, float("inf"), seen, lived_s)
    assert (seen.not_let_in, lived_s) == (1, [])


async def test_a_connection_that_is_closed_has_lived() -> None:
    async def close(connection: Connection) -> None:
        await connection.part()

    async with raw_server(close) as server:
        seen, lived_s = loris.Seen(), list[float]()
        with trio.move_on_after(0.5):
            await loris._hold(port_of(server.url), b"x", 0.0, float("inf"), seen, lived_s)
    assert seen.not_let_in == 0
    assert len(lived_s) > 2


def port_of(url: str) -> int:
    return int(url.rstrip("/").rpartition(":")[2].partition("/")[0])


# --- disconnect storm


def books(asked: int, accepted: int) -> storm.Books:
    found = storm.Books(accepted={str(number) for number in range(accepted)})
    found.asked["create, stayed"] = asked
    return found


@pytest.mark.parametrize(
    ("asked", "accepted", "found"),
    [
        (100, 50, []),
        (90, 50, ["only 90 of 100 clients got through"]),
        (100, 5, ["only 5 tasks accepted"]),
    ],
)
def test_a_storm_without_clients_or_tasks_is_missed(
    asked: int, accepted: int, found: list[str]
) -> None:
    assert storm.check_clients(100, books(asked, accepted)) == found


async def test_a_client_that_stays_and_is_cut_off_is_counted() -> None:
    async def cut(connection: Connection) -> None:
        await connection.request()

    async with raw_server(cut) as server:
        kept = books(0, 100)
        await storm.Storm(target_at(server.url), kept, 1)._stay("create", request("GET", "/"))
    assert kept.cut.total() == kept.asked.total() == 1
    assert storm.check_clients(1, kept) == ["create: the peer closed the connection, 1 times"]


def target_at(url: str) -> Target:
    running = Running("server", url.rstrip("/"), 1)
    return Target(Stack(running, running), Path())


# --- descriptors


KNOWN = descriptors.Seen(descriptors=200, sent_away=500, accepted=900, called=800)
SUNK = descriptors.Seen(descriptors=256, accepted=10)


def test_pressure_and_callbacks_hold_the_bar() -> None:
    assert descriptors._specific(KNOWN, SUNK) == []


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"sent_away": 10}, "known: nobody had to make room"),
        ({"called": 400}, "known: too few callbacks meanwhile"),
        ({"descriptors": 256}, "known: the descriptors kept back were not enough"),
    ],
)
def test_clients_that_were_no_burden_are_missed(changed: dict[str, int], found: str) -> None:
    assert descriptors._specific(attrs.evolve(KNOWN, **changed), SUNK) == [found]


async def test_whom_the_server_sends_away_is_counted() -> None:
    async with raw_server(once(answer(b"", 200))) as server:
        seen = descriptors.Seen()
        with trio.move_on_after(0.5):
            await descriptors._hold(port_of(server.url), seen)
    assert seen.sent_away > 0


# --- herd


def test_retries_that_flood_their_host_are_missed() -> None:
    host = herd.Host(tasks=10, firsts=herd.KNOWN_AFTER + 1, in_flight=herd.LIMIT + 1)
    host._note(first=False)
    assert (host.peak_retries, host.peak_known) == (herd.LIMIT + 1, 0)
    host._note(first=True)
    host.in_flight = herd.EXECUTORS + 1
    host._note(first=False)
    found = herd.Herd(host=host, planned=Counter(), came=Counter(), left=0).misses()
    assert f"{herd.LIMIT + 1} at once while it failed" in found
    assert f"{herd.EXECUTORS + 1} calls at once" in found


# --- watchers


FOUND = {
    "missed": 0, "repeated": 0, "whole": 150, "closed": [], "events": 30_000,
    "lagMs": {"p50": 1.0, "p95": 2.0, "p99": 3.0},
}  # fmt: skip


@pytest.mark.parametrize(
    ("per_s", "before_deaf", "late"),
    [
        (250.0, [950.0, 930.0, 100.0], []),
        (230.0, [950.0, 930.0, 100.0], ["only 920 events/s"]),
        (250.0, [850.0, 860.0, 1000.0], ["tasks became slower"]),
    ],
)
def test_too_few_events_or_a_loss_of_throughput_are_missed(
    per_s: float, before_deaf: list[float], late: list[str]
) -> None:
    offered = watchers.Offered(tasks=7_500, per_s=per_s)
    loops = watchers.Loops([1000.0, 900.0, 1100.0], before_deaf)
    looks = watchers.Looks(dropped_s=6.0)
    came = watchers._verdict(watchers.LONG, offered, loops, looks, FOUND, 1.0)
    assert (came.misses, came.late) == ([], late)
