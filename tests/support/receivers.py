"""Receivers of signed calls, good ones and ones that go wrong in one thing each. The public
``standardwebhooks`` package verifies for them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import trio
import trustme
from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.raw_server import Connection, RawServer, Script, Seen, answer

Headers = dict[str, str]
Policy = Callable[[Headers, bytes], int]
"""The status to answer a call with."""


def headers_of(seen: Seen) -> Headers:
    """The headers of a request, names in lower case."""
    lines = seen.head.decode("latin-1").split("\r\n")[1:]
    return {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }


def answers(policy: Policy, *, body: bytes = b"", more: Mapping[str, str] | None = None) -> Script:
    """Waits for each whole request, and answers as the policy says."""

    async def script(connection: Connection) -> None:
        while (seen := await connection.request()) is not None:
            status = policy(headers_of(seen), seen.body)
            await connection.send(answer(body, status, **(more or {})))

    return script


class Good:
    """Verifies every call, and does the work once: the policy of a receiver as it should be."""

    def __init__(self, secret: str) -> None:
        self._webhook = Webhook(secret)
        self.done: list[str] = []

    def __call__(self, headers: Headers, body: bytes) -> int:
        try:
            self._webhook.verify(body, headers)
        except WebhookVerificationError:
            return 401
        if headers["webhook-id"] not in self.done:
            self.done.append(headers["webhook-id"])
        return 200


def accepts_all(_headers: Headers, _body: bytes) -> int:
    return 200


def ignores_timestamps(secret: str) -> Policy:
    """Verifies, but takes calls of any age."""
    webhook = Webhook(secret)

    def policy(headers: Headers, body: bytes) -> int:
        moment = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        right = webhook.sign(headers["webhook-id"], moment, body.decode())
        return 200 if right in headers.get("webhook-signature", "").split(" ") else 401

    return policy


def knows_the_first_signature_only(secret: str) -> Policy:
    good = Good(secret)

    def policy(headers: Headers, body: bytes) -> int:
        first = headers.get("webhook-signature", "").partition(" ")[0]
        return good({**headers, "webhook-signature": first}, body)

    return policy


def wants_a_header_only(secret: str) -> Policy:
    """Does not care what the signature says, if there is one."""
    good = Good(secret)

    def policy(headers: Headers, body: bytes) -> int:
        return 200 if "webhook-signature" in headers else good(headers, body)

    return policy


def fails_on_duplicates(secret: str) -> Policy:
    """Its table has a unique key, and nobody thought of that."""
    good = Good(secret)

    def policy(headers: Headers, body: bytes) -> int:
        if headers["webhook-id"] in good.done:
            return 500
        return good(headers, body)

    return policy


def crashes_on_forged_calls(secret: str) -> Policy:
    good = Good(secret)
    return lambda headers, body: 200 if good(headers, body) == 200 else 500


def impatient(policy: Policy, patience_s: float, then: Script) -> Script:
    """Waits only so long for a request, or for the rest of its body; ``then`` it loses patience."""

    async def script(connection: Connection) -> None:
        while True:
            with trio.move_on_after(patience_s):
                if (seen := await connection.request()) is None:
                    return
                await connection.send(answer(b"", policy(headers_of(seen), seen.body)))
                continue
            await then(connection)
            return

    return script


def says(status: int) -> Script:
    """Says this at once."""

    async def script(connection: Connection) -> None:
        await connection.send(answer(b"", status, Connection="close"))

    return script


@asynccontextmanager
async def tls_server(script: Script, certificate: trustme.LeafCert) -> AsyncIterator[str]:
    """A server that speaks TLS; its URL."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server = RawServer(listeners[0].socket.getsockname()[1], "https")

    async def handle(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async with trio.SSLStream(stream, context, server_side=True) as secured:
                await script(Connection(secured, server))

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, listeners)
        yield server.url
        nursery.cancel_scope.cancel(reason="the test is over")
