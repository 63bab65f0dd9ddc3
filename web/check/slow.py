"""A call whose body comes in drops, as over a bad network. The engine itself never sends like that."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Final

import attrs
import httpx
import trio

from engine import ErrorClass
from engine.core.callback import CallbackRequest
from engine.core.outcome import Answer

_DROPS: Final = 12


async def send_slowly(request: CallbackRequest, over_s: float) -> Answer:
    """Make the call; its body takes ``over_s`` seconds, which its timeout does not count. The
    answer has no body. The address is not checked: only send where the engine's caller did."""
    outgoing = httpx.Request(
        request.method, request.url, headers=dict(request.headers), content=request.body
    )
    outgoing.stream = _Drops(request.body, over_s)
    with trio.move_on_after(over_s + request.timeout_s):
        try:
            # As the engine has it: the system's certificates, no proxies, no redirects.
            tls = ssl.create_default_context()
            async with httpx.AsyncHTTPTransport(verify=tls, trust_env=False) as transport:
                response = await transport.handle_async_request(outgoing)
                await response.aclose()
        except httpx.TransportError as error:
            words = f"the connection was cut while the body arrived: {error}".rstrip(": ")
            return Answer(error_class=ErrorClass.DISCONNECTED, error=words)
        return Answer(status_code=response.status_code)
    return Answer(
        error_class=ErrorClass.TIMEOUT,
        error=f"no answer within {request.timeout_s:g} s of the end of the body",
    )


@attrs.define
class _Drops(httpx.AsyncByteStream):
    """A body in pieces. Each may be sent when its time has come."""

    body: bytes
    over_s: float

    def __aiter__(self) -> AsyncIterator[bytes]:
        size = -(-len(self.body) // _DROPS)
        pieces = [self.body[at : at + size] for at in range(0, len(self.body), size)]
        return _Pieces(pieces, self.over_s / len(pieces))


@attrs.define
class _Pieces(AsyncIterator[bytes]):
    left: list[bytes]
    pause_s: float

    async def __anext__(self) -> bytes:
        if not self.left:
            raise StopAsyncIteration
        await trio.sleep(self.pause_s)
        return self.left.pop(0)
