"""Calling a scripted server through the real HTTP client."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from engine.adapters.http import HttpCallbackNet
from engine.adapters.http.failures import CallFailed
from engine.adapters.http.wire import Wire, connect_tcp
from engine.core.callback import CallbackRequest
from engine.core.outcome import Answer
from engine.core.task import ErrorClass
from engine.ports.callback_net import Caller
from tests.support.raw_server import Script, always, answer, raw_server

CAP = 1000
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
_TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def request(url: str, timeout_s: float = 2.0, body: bytes = b'{"a":1}') -> CallbackRequest:
    headers = {"User-Agent": "Ringback/test", "Content-Type": "application/json"}
    return CallbackRequest(method="POST", url=url, headers=headers, body=body, timeout_s=timeout_s)


class SpyingConnect:
    """Connects to 127.0.0.1 in place of every other address, and knows what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.wires: list[Wire] = []

    async def __call__(self, address: str, port: int) -> Wire:
        self.asked.append((address, port))
        wire = await connect_tcp("127.0.0.1", port)
        self.wires.append(wire)
        return wire

    @property
    def open(self) -> int:
        return sum(repr(wire) != "<TcpWire closed>" for wire in self.wires)


class ScriptedNames:
    """Gives the n-th look-up of a name its n-th answer; the last one answers all that follow.
    An address stands for itself unless it is scripted."""

    def __init__(self, answers: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._answers = {name: list(each) for name, each in answers.items()}
        self.asked: list[str] = []
        self.forgotten: list[str] = []

    async def addresses(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        await trio.lowlevel.checkpoint()
        left = self._answers.get(host)
        if not left and host.replace(".", "").isdigit():
            return [host]
        if not left:
            raise CallFailed(ErrorClass.DNS, "the host name could not be resolved")
        return left.pop(0) if len(left) > 1 else left[0]

    def forget(self, host: str) -> None:
        self.forgotten.append(host)


def open_net(
    *,
    body_bytes_max: int = CAP,
    connect_timeout_s: float = 1.0,
    tls: ssl.SSLContext | None = _TRUSTS_NOBODY,
    **others: Any,
) -> HttpCallbackNet:
    """The network, by default with a TLS context that costs nothing to make."""
    return HttpCallbackNet(
        body_bytes_max=body_bytes_max, connect_timeout_s=connect_timeout_s, tls=tls, **others
    )


@asynccontextmanager
async def open_caller(**options: Any) -> AsyncIterator[Caller]:
    """A caller; at the end no connection of it may be open any more."""
    spy = SpyingConnect()
    async with open_net(connect=spy, **options).open_caller() as caller:
        yield caller
    assert spy.open == 0


async def one_call(script: Script, timeout_s: float = 2.0) -> Answer:
    """The answer to one call; the next call on the same caller must work, whatever it was."""
    async with raw_server(script) as server, open_caller() as caller:
        first = await caller.call(request(server.url, timeout_s))
        async with raw_server(always(answer())) as healthy:
            assert await caller.call(request(healthy.url)) == Answer(status_code=200, body=b"ok")
        return first


def failed(found: Answer, error_class: ErrorClass, part: str = "") -> bool:
    assert found.error is not None
    assert found.error_class is error_class, found
    assert part in found.error
    assert len(found.error) <= 300
    return found.status_code is None and found.body == b""


class CancelHere(trio.abc.Instrument):
    """Cancels a scope when the task that made this is about to make its n-th step."""

    def __init__(self, step: int, scope: trio.CancelScope) -> None:
        self._left = step
        self._scope = scope
        self._task = trio.lowlevel.current_task()
        self.fired = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self.fired = True
                self._scope.cancel(reason="sweep")
