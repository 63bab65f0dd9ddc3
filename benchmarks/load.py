"""The load generator: HTTP/1.1 over keep-alive connections, in a closed loop.

It shares the machine with what it measures, so requests are encoded once and answers are cut out
of the bytes by hand. A request whose answer never came is counted as cut off and is not repeated:
only the caller knows whether a second one would do harm.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import perf_counter
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import attrs
import trio

HEAD_BYTES_MAX: Final = 64 * 1024
CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 60.0


@attrs.frozen
class Request:
    """One request, already in bytes but for the host, which the connection knows."""

    head: bytes
    body: bytes = b""


def request(
    method: str, target: str, body: object = None, headers: Mapping[str, str] | None = None
) -> Request:
    """A request with a JSON body, or with none."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in (headers or {}).items())]
    if body is None:
        return Request("\r\n".join([*lines, ""]).encode("latin-1"))
    raw = json.dumps(body, separators=(",", ":")).encode()
    lines += ["content-type: application/json", f"content-length: {len(raw)}"]
    return Request("\r\n".join([*lines, ""]).encode("latin-1"), raw)


@attrs.frozen
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]

    def json(self) -> Any:
        return json.loads(self.body)


class CutOffError(Exception):
    """The connection ended, or nothing came for too long, before the answer was complete."""


class Connection:
    """One keep-alive connection that reopens itself after `connection: close` or a cut."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._head_end = f"host: {parts.netloc}\r\n\r\n".encode("ascii")
        self._stream: trio.SocketStream | None = None
        self._buffer = bytearray()
        self.connects = 0

    def __repr__(self) -> str:
        state = "open" if self._stream else "closed"
        return f"<Connection {self._host}:{self._port} {state}, connected {self.connects} times>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    async def ask(self, asked: Request) -> Answer:
        """Send one request and read its whole answer; raises CutOffError."""
        try:
            with trio.fail_after(ANSWER_TIMEOUT_S):
                stream = self._stream or await self._connect()
                await stream.send_all(asked.head + self._head_end + asked.body)
                answer = await self._read_answer(stream)
        except (
            OSError,
            ValueError,
            trio.BrokenResourceError,
            trio.TooSlowError,
            CutOffError,
        ) as exc:
            self._close()
            raise CutOffError(str(exc) or type(exc).__name__) from exc
        if answer.headers.get("connection", "").lower() == "close":
            self._close()
        return answer

    async def _connect(self) -> trio.SocketStream:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            self._stream = await trio.open_tcp_stream(self._host, self._port)
        self.connects += 1
        return self._stream

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        self._buffer.clear()
        if stream is not None:
            stream.socket.close()

    async def _read_answer(self, stream: trio.SocketStream) -> Answer:
        status, headers = parse_head(await self._take_until(stream, b"\r\n\r\n"))
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body = await self._read_chunks(stream)
        elif "content-length" in headers:
            body = await self._take(stream, int(headers["content-length"]))
        elif status in (204, 304):
            body = b""
        else:
            raise CutOffError("an answer without a length")
        return Answer(status, body, headers)

    async def _read_chunks(self, stream: trio.SocketStream) -> bytes:
        body = bytearray()
        while size := int((await self._take_until(stream, b"\r\n")).split(b";")[0], 16):
            body += await self._take(stream, size)
            await self._take(stream, 2)
        while await self._take_until(stream, b"\r\n"):
            pass  # trailers
        return bytes(body)

    async def _take_until(self, stream: trio.SocketStream, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise CutOffError("an endless head")
            await self._fill(stream)
        taken = bytes(self._buffer[:end])
        del self._buffer[: end + len(mark)]
        return taken

    async def _take(self, stream: trio.SocketStream, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._fill(stream)
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _fill(self, stream: trio.SocketStream) -> None:
        data = await stream.receive_some()
        if not data:
            raise CutOffError("the peer closed the connection")
        self._buffer += data


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers, names in lower case."""
    status_line, *header_lines = head.decode("latin-1").split("\r\n")
    version, _, rest = status_line.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
        raise CutOffError("not an HTTP/1.1 answer")
    headers: dict[str, str] = {}
    for line in header_lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return int(rest[:3]), headers


@attrs.define
class LoadResult:
    """What a closed loop saw. Latencies are seconds, of the wanted answers, reconnects included."""

    latencies: list[float] = attrs.field(factory=list)
    unwanted: Counter[str] = attrs.field(factory=Counter)  # what came instead -> how often
    connects: int = 0
    started: float = 0.0
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        return self.ended - self.started


async def closed_loop(
    url: str,
    requests: Iterable[Request],
    *,
    connections: int,
    wanted: Iterable[int] = (200, 201),
    on_answer: Callable[[Answer, float], None] | None = None,
) -> LoadResult:
    """Send `requests`, each connection its next one as soon as its last is answered.

    `on_answer` gets each wanted answer and when its request was sent, on `time.perf_counter`.
    """
    result, shared = LoadResult(), iter(requests)
    wanted_statuses = frozenset(wanted)

    async def one_connection() -> None:
        with Connection(url) as connection:
            await _drive(connection, shared, wanted_statuses, result, on_answer)
            result.connects += connection.connects

    result.started = perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(connections):
            nursery.start_soon(one_connection)
    result.ended = perf_counter()
    return result


async def _drive(
    connection: Connection,
    requests: Iterator[Request],
    wanted: frozenset[int],
    result: LoadResult,
    on_answer: Callable[[Answer, float], None] | None,
) -> None:
    for asked in requests:
        began = perf_counter()
        try:
            answer = await connection.ask(asked)
        except CutOffError as cut:
            result.unwanted[f"cut off: {cut}"] += 1
            continue
        if answer.status not in wanted:
            result.unwanted[f"status {answer.status}"] += 1
            continue
        result.latencies.append(perf_counter() - began)
        if on_answer is not None:
            on_answer(answer, began)


def until(deadline: float, make: Callable[[], Request]) -> Iterator[Request]:
    """Requests until `time.perf_counter` reaches the deadline."""
    while perf_counter() < deadline:
        yield make()


async def ask_once(url: str, asked: Request) -> Answer:
    with Connection(url) as connection:
        return await connection.ask(asked)
