"""Many websocket watchers in one process: ``python -m benchmarks.watch_client URL WATCHERS``.

Prints a line when all have subscribed. Standard input then says how many events there have been since.
Every watcher must have as many, and what the server has by then: it waits for that, and prints what
they got as JSON. It shares the machine with the server,
so it has a loop of its own, and reads no message twice.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import select
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from benchmarks.watching import TEXT, Follower, Frame, Lags, Reference, Seen, next_frame

PATH: Final = "/api/v1/tasks/stream"
PONG: Final = 10
RECEIVE_BYTES: Final = 65536
PATIENCE_S: Final = 10.0  # without anything new, what is missing counts as missing
OTHER_FILES: Final = 50


class RefusedError(Exception):
    """The server did not let a watcher in."""


@attrs.define(eq=False)
class Watcher:
    """One socket, and who takes what comes there."""

    socket: socket.socket
    take: Callable[[bytes, float], list[Frame]]
    seen: Seen

    def receive(self, now: float) -> bool:
        """Take what has come. Whether more may come."""
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return True
        except OSError as error:
            self.seen.closed = self.seen.closed or str(error)
            return False
        if not data:
            self.seen.closed = self.seen.closed or "the connection ended"
            return False
        for ping in self.take(data, now):
            self.socket.send(client_frame(PONG, ping.payload))
        return True


def client_frame(opcode: int, payload: bytes) -> bytes:
    """A short frame; masked with zeros, which change nothing."""
    return bytes([0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def connect(url: str) -> tuple[socket.socket, bytes]:
    """A subscribed websocket, and what came behind the answer to its handshake."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=10)
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET {PATH} HTTP/1.1\r\nhost: {parts.netloc}\r\nupgrade: websocket\r\n"
        f"connection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n".encode()
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        received = connection.recv(RECEIVE_BYTES)
        if not received:
            raise RefusedError(f"the handshake was not answered: {answer[:200]!r}")
        answer += received
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b" 101 " not in head.partition(b"\r\n")[0]:
        raise RefusedError(head.decode(errors="replace"))
    connection.sendall(client_frame(TEXT, b'{"subscribe":{}}'))
    return connection, rest


def newest_seq(url: str) -> int:
    """The number of the newest event: what a new watcher is told."""
    connection, data = connect(url)
    with connection:
        while (frame := next_frame(data)) is None:
            data += connection.recv(RECEIVE_BYTES)
    return int(json.loads(frame.payload)["seq"])


class Crowd:
    """All watchers. The first is the reference for all others."""

    def __init__(self, url: str, count: int) -> None:
        self._url = url
        self.reference = Reference()
        self.followers = [Follower(self.reference) for _ in range(count - 1)]
        self._poll = select.epoll()
        self._open: dict[int, Watcher] = {}
        self.all: list[Watcher] = []

    def subscribe(self) -> None:
        """Connect one after the other, and wait until each is told that it is subscribed."""
        self._add(self.reference.feed, self.reference.seen)
        for follower in self.followers:
            self._add(follower.feed, follower.seen)

    def _add(self, take: Callable[[bytes, float], list[Frame]], seen: Seen) -> None:
        connection, rest = connect(self._url)
        watcher = Watcher(connection, take, seen)
        self.all.append(watcher)
        now = time.time()  # noqa: TID251 - events carry the time of day
        take(rest, now)
        while seen.last_seq < 0:
            if not watcher.receive(now):
                raise RefusedError(seen.closed)
        connection.setblocking(False)
        self._open[connection.fileno()] = watcher
        self._poll.register(connection, select.EPOLLIN)

    def newest(self, told: int, events: int) -> int:
        """The number of the newest event: what the server told is not enough if it has passed on
        fewer than there were."""
        return max(told, self.reference.first_seq - 1 + events)

    def run(self, *, until_input_ends: bool, until_seq: int = 0) -> None:
        """Receive until standard input says something or ends; or until all have the event, or no more comes."""
        if until_input_ends:
            self._poll.register(sys.stdin, select.EPOLLIN | select.EPOLLHUP)
        first = next(iter(self._open), -1)
        while self._open and (until_input_ends or self._lacks(until_seq)):
            ready = self._poll.poll(PATIENCE_S)
            if not ready and not until_input_ends:
                return
            now = time.time()  # noqa: TID251
            descriptors = [descriptor for descriptor, _ in ready]
            if first in descriptors:  # the others are compared with it
                descriptors.remove(first)
                self._receive(first, now)
            for descriptor in descriptors:
                if descriptor == sys.stdin.fileno():
                    self._poll.unregister(sys.stdin)
                    return
                self._receive(descriptor, time.time())  # noqa: TID251

    def _lacks(self, seq: int) -> bool:
        for follower in self.followers:
            follower.feed(b"", time.time())  # noqa: TID251 - what waited for the reference
        return any(one.seen.last_seq < seq for one in self._open.values())

    def _receive(self, descriptor: int, now: float) -> None:
        watcher = self._open[descriptor]
        if not watcher.receive(now):
            self._poll.unregister(descriptor)
            watcher.socket.close()
            del self._open[descriptor]


def summary(crowd: Crowd, newest: int) -> dict[str, Any]:
    """What all of them got, up to the event that was the newest."""
    everyone = [crowd.reference.seen, *(follower.finish() for follower in crowd.followers)]
    lags, began = Lags(), [crowd.reference.arrivals, *(one.arrivals for one in crowd.followers)]
    for arrivals in began:
        crowd.reference.add_lags(arrivals, lags)
    return {
        "watchers": len(everyone),
        "events": len(crowd.reference.seqs),
        "received": sum(seen.events for seen in everyone),
        "missed": sum(seen.missed + max(0, newest - seen.last_seq) for seen in everyone),
        "repeated": sum(seen.repeated for seen in everyone),
        "whole": sum(not (seen.missed or seen.repeated or seen.last_seq < newest) for seen in everyone),
        "closed": sorted({seen.closed for seen in everyone if seen.closed}),
        "dropped": sum(bool(seen.closed) for seen in everyone),
        "inStep": 1 + sum(follower.in_step for follower in crowd.followers),
        "chunks": sum(len(arrivals) for arrivals in began),
        "lagMs": {f"p{p}": lags.percentile_s(p) * 1000 for p in (50, 95, 99)} if lags.total else {},
        "lagMaxMs": lags.most_s * 1000,
    }  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """Subscribe, receive, and tell."""
    url, count = arguments[0], int(arguments[1])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + OTHER_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + OTHER_FILES), hard))
    crowd = Crowd(url, count)
    crowd.subscribe()
    print("subscribed", flush=True)
    began, used = time.perf_counter(), time.process_time()
    crowd.run(until_input_ends=True)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - used
    newest = crowd.newest(newest_seq(url), events=int(sys.stdin.read() or 0))
    crowd.run(until_input_ends=False, until_seq=newest)
    found = summary(crowd, newest)
    print(json.dumps(found | {"seconds": seconds, "cpuSeconds": cpu_s}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
