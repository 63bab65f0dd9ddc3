"""One HTTP/1.1 exchange after the other over one wire.

llhttp parses, with every leniency off. What it lets through and we do not: other versions than 1.0
and 1.1, statuses below 100, transfer codings other than one ``chunked``, anything before the status
line, and any amount of bytes that are not body. Of these, one rule bounds them all: head, interim
answers, chunk sizes, extensions and trailers together.
"""

# ruff: noqa: RUF100, RUF102  # ASYNC910 is flake8-async's
from __future__ import annotations

import httptools
import trio

from engine.core.outcome import Answer
from engine.core.task import ErrorClass

from .failures import CallFailed
from .wire import RECEIVE_BYTES, Wire

_FRAMING_BYTES_MAX = 64 * 1024  # that are not body, and …
_FRAMING_PER_BYTE = 8  # … as many more for each byte of body: a chunk of one byte needs five
_INTERIM_MAX = 16  # answers of status 1xx before the real one
_SENT_BLINDLY_MAX = 16 * 1024  # of a longer request, the answer may come before all of it is sent
_KEPT = frozenset({b"retry-after", b"x-task-no-retry", b"content-type"})
_HEADER_MAX = 256  # characters kept of each
_FINAL_MIN = 200
_SWITCHING = 101


class Connection:
    """A wire with a parser. After any error it is of no more use and must be closed."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._reader = _Reader()

    @property
    def heard(self) -> bool:
        """Whether any byte has come in answer to the last request."""
        return self._reader.received > 0

    @property
    def reusable(self) -> bool:
        """Whether another request may follow the answer."""
        return self._reader.reusable

    def is_quiet(self) -> bool:
        """Whether nothing has come in since the answer, not even an end."""
        return self._wire.is_quiet()

    def close(self) -> None:
        """Close now, in whatever state."""
        self._wire.close()

    async def exchange(self, message: bytes, body_bytes_max: int) -> Answer:
        """Send a request and read its answer. Raises ``CallFailed``, ``trio.BrokenResourceError``.

        An answer counts also if the request could not be sent whole: a server that refuses a
        request for its size does not read on.
        """
        self._reader.begin(body_bytes_max)
        if len(message) > _SENT_BLINDLY_MAX:
            return await self._both_ways(message)
        broken = await self._send(message)
        return await self._answer(broken)

    async def _both_ways(self, message: bytes) -> Answer:
        outcome: Answer | CallFailed | trio.BrokenResourceError
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, message)
            try:
                outcome = await self._answer(None)
            except (CallFailed, trio.BrokenResourceError) as error:
                outcome = error
            nursery.cancel_scope.cancel(reason="the answer is there")
        if isinstance(outcome, Answer):
            return outcome
        raise outcome

    async def _send(self, message: bytes) -> trio.BrokenResourceError | None:
        self._reader.sent = False
        try:
            await self._wire.send_all(message)
        except trio.BrokenResourceError as error:
            return error  # noqa: ASYNC910 - the answer is waited for all the same
        self._reader.sent = True
        return None

    async def _answer(self, broken: trio.BrokenResourceError | None) -> Answer:
        reader, wire = self._reader, self._wire
        while not reader.ended:
            try:
                data = await wire.receive_some(RECEIVE_BYTES)
            except trio.BrokenResourceError:
                if broken is not None:
                    raise broken from broken.__cause__  # the older error says more
                raise
            reader.take(data)
        return reader.answer()  # noqa: ASYNC910 - no answer has ended before it was received


class _Reader:
    """Makes one answer at a time of what comes in. The methods named ``on_…`` are the parser's
    calls; they raise nothing, because of what is raised in them only the fact would be left."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body_bytes_max = 0
        self.begin(0)

    def begin(self, body_bytes_max: int) -> None:
        """Be ready for the answer to another request."""
        self._body_bytes_max = body_bytes_max
        self._body = bytearray()
        self._interim = 0
        self._problem: str | None = None
        self._complete = False
        self._kept_alive = False
        self._spare = False
        self.received = 0
        self.sent = True
        self._begin_head()

    def _begin_head(self) -> None:
        self._status = 0
        self._in_head = True
        self._has_length = False
        self._coded = False
        self._headers: dict[str, str] = {}

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self._complete or len(self._body) > self._body_bytes_max

    @property
    def reusable(self) -> bool:
        """Whether request and answer were complete, with nothing behind, and it may go on."""
        return self._kept_alive and self.sent and not self._spare and not self._truncated

    @property
    def _truncated(self) -> bool:
        return len(self._body) > self._body_bytes_max

    def take(self, data: bytes) -> None:
        """Parse what came in, ``b""`` for the end. Raises ``CallFailed``."""
        if not data:
            self._take_end()
            return
        self.received += len(data)
        if self.received == len(data) and data[0] != ord("H"):
            raise _malformed("it does not begin with HTTP")
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.ended:
                raise _malformed(self._problem or str(error)) from error
            # What follows a complete answer is no part of it, and was noted when it began.
        if self._problem is not None:
            raise _malformed(self._problem)
        framing = self.received - len(self._body)
        if not self.ended and framing > _FRAMING_BYTES_MAX + _FRAMING_PER_BYTE * len(self._body):
            raise _malformed("too much that is not body")

    def answer(self) -> Answer:
        """The answer, once it has ended."""
        return Answer(
            status_code=self._status,
            headers=self._headers,
            body=bytes(self._body[: self._body_bytes_max]),
            truncated=self._truncated,
        )

    def _take_end(self) -> None:
        if self._in_head or self._has_length or self._coded:
            text = "the connection ended before the answer did"
            raise CallFailed(ErrorClass.DISCONNECTED, text)
        self._complete = True

    def on_message_begin(self) -> None:
        self._spare = self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._complete or not self._in_head:
            return  # the next message, or a trailer
        name = name.lower()
        if name in _KEPT:
            self._keep(name.decode("ascii"), value.decode("latin-1").strip())
        elif name == b"content-length":
            self._has_length = True
        elif name == b"transfer-encoding":
            if self._coded or value.strip().lower() != b"chunked":
                self._problem = "its transfer coding is not chunked"
            self._coded = True

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        self._in_head = False
        self._status = self._parser.get_status_code()
        if self._status == _SWITCHING:
            self._problem = "it switches protocols, which nobody asked for"
        elif self._status < 100:
            self._problem = "its status is not one of HTTP"
        self._version = self._parser.get_http_version()
        if self._version not in ("1.1", "1.0"):
            self._problem = "its version is not one of HTTP/1"

    def on_body(self, part: bytes) -> None:
        if not self.ended:
            self._body += part

    def on_message_complete(self) -> None:
        if self._complete:
            return
        if self._status < _FINAL_MIN:
            self._interim += 1
            if self._interim > _INTERIM_MAX:
                self._problem = "too many interim answers"
            self._begin_head()
            return
        self._complete = True
        self._kept_alive = self._version == "1.1" and self._parser.should_keep_alive()

    def _keep(self, name: str, value: str) -> None:
        before = self._headers.get(name)
        joined = value if before is None else f"{before}, {value}"
        self._headers[name] = joined[:_HEADER_MAX]


def _malformed(detail: str) -> CallFailed:
    return CallFailed(ErrorClass.PROTOCOL, f"the answer is not valid HTTP: {detail}")
