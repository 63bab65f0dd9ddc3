"""All hostile byte sequences, by name: what an attacker says, part by part, and in which state of
the connection."""

from __future__ import annotations

from typing import Final

import attrs

from tests.attack.bytes_http2 import HTTP2
from tests.attack.bytes_requests import REQUESTS
from tests.attack.bytes_websocket import FRAMES, HANDSHAKES, SUBSCRIBE
from tests.attack.bytes_wire import upgrade

CORPUS: Final[dict[str, list[bytes]]] = REQUESTS | HTTP2 | HANDSHAKES


@attrs.frozen
class Sequence:
    """What is said on one connection. What comes ``first`` is good, and waits for its answer."""

    name: str
    first: tuple[bytes, ...]
    parts: tuple[bytes, ...]

    @property
    def bytes(self) -> bytes:
        """All of it."""
        return b"".join((*self.first, *self.parts))


def sequences() -> list[Sequence]:
    """All there are, each different from all others."""
    return [
        *(Sequence(name, (), tuple(parts)) for name, parts in CORPUS.items()),
        *(Sequence(f"frame: {name}", (upgrade(),), (data,)) for name, data in FRAMES.items()),
        *(
            Sequence(f"frame of a watcher: {name}", (upgrade(), SUBSCRIBE), (data,))
            for name, data in FRAMES.items()
        ),
    ]
