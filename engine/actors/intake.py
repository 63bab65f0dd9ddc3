"""The intake actor: carries hints from the broker to the queue actor."""

from __future__ import annotations

import contextlib

import trio

from engine.errors import EngineStopping, Overloaded
from engine.messages import Offered, QueueMessage
from engine.ports.broker import Broker, Delivery

from .mailbox import Inbox

_BUSY_PAUSE_S = 0.005


async def intake(
    broker: Broker, queue: Inbox[QueueMessage], *, task_status: trio.TaskStatus[None]
) -> None:
    """Owns nothing. Receives deliveries, tells the queue, acks. Stops when the broker or the
    queue ends."""
    task_status.started()
    with contextlib.suppress(trio.EndOfChannel, EngineStopping):
        while True:
            delivery = await broker.receive()
            await _pass_on(queue, delivery)
            await broker.ack(delivery)


async def _pass_on(queue: Inbox[QueueMessage], delivery: Delivery) -> None:
    while True:
        try:
            queue.tell(Offered(delivery))
        except EngineStopping:
            raise
        except Overloaded:
            await trio.sleep(_BUSY_PAUSE_S)
        else:
            await trio.lowlevel.checkpoint()
            return
