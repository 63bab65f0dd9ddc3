"""A callback receiver for the demo, the benchmarks and the tests: it answers badly on request.

The path chooses the behaviour (`REACTIONS`), every call is remembered, and the calls truly in
flight are counted here, where no wish of the sender can colour the figure.

    async with open_receiver() as receiver:      # in a Trio program
    python -m web.receiver --port 0              # as a process: GET /_calls, /_answered; POST /_reset
"""

from __future__ import annotations

from web.receiver.calls import Call, CallLog
from web.receiver.reactions import REACTIONS, Reaction
from web.receiver.server import Receiver, open_receiver
from web.receiver.wire import Request

__all__ = ["REACTIONS", "Call", "CallLog", "Reaction", "Receiver", "Request", "open_receiver"]
