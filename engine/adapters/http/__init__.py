"""Callbacks over HTTP/1.1: ``resolve → check → connect → TLS → send → read → classify``.

* ``request``: the URL taken apart once, and the exact bytes that go out; header injection ends here.
* ``names``: name → addresses, in threads of our own, one look-up at a time for each name.
* ``connect``: every address passes the egress guard before any is connected to; only checked
  addresses are, and TLS verifies the original name.
* ``wire``: the bytes, over a socket or over TLS.
* ``connection``: one exchange at a time, parsed strictly and within limits; the raw body up to a
  cap, never decompressed; no redirect is followed, no cookie kept.
* ``idle``: connections that are kept for the next call, a few for each caller.
* ``caller``: the port: the deadline of an attempt, and a second try where a kept connection died.
* ``failures``: whatever the other side provokes becomes an ``Answer``; nothing of it is raised.

Every caller owns its connections. There is no pool and no lock, so a call that is cancelled can
harm nobody else: it closes its connection. The bytes are parsed by llhttp (httptools); httpx is
asked what a URL means, and nothing else, because its objects cost more than the exchange itself
(``python -m benchmarks --only transport``).
"""

from __future__ import annotations

from .caller import HttpCallbackNet

__all__ = ["HttpCallbackNet"]
