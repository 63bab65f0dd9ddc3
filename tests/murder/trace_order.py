"""Whether every task was on disk before its client was told so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import attrs

from tests.murder.trace_log import Call

_WAL_HEADER: Final = 32
_FRAME_HEADER: Final = 24
_PAGE: Final = 4096
_STORED_ID: Final = re.compile(
    rb"(?=([0-9a-f]{32}))"
)  # as a page has it; neighbours may look alike
_TOLD_ID: Final = re.compile(rb'"taskId": ?"([0-9a-f-]{36})"')
_SYNCS: Final = ("fdatasync", "fsync")


@attrs.frozen
class Told:
    """A client has been told that its task is accepted."""

    task_id: str
    begun: int  # the place in the trace where its 201 began to leave


@attrs.define
class Order:
    """What a trace says about the tasks it saw accepted."""

    synced: list[str] = attrs.field(factory=list)
    early: list[str] = attrs.field(factory=list)
    """The answer left before the commit was on disk."""
    unseen: list[str] = attrs.field(factory=list)
    """No commit was seen at all."""


def told_in(calls: Sequence[Call]) -> list[Told]:
    """Every 201 that left, with each task in it."""
    return [
        Told(told[1].decode(), call.begun)
        for call in calls
        if call.on.startswith("TCP") and call.data.startswith(b"HTTP/1.1 201")
        for told in _TOLD_ID.finditer(call.data)
    ]


def order_of(calls: Sequence[Call], wal: str) -> Order:
    """For each 201: between the last WAL write of the task's commit and the first byte to the
    client, was there a sync of the WAL that had returned?"""
    told = told_in(calls)
    durable = _durable_at(calls, wal, {one.task_id.replace("-", "").encode() for one in told})
    order = Order()
    for one in told:
        at = durable.get(one.task_id.replace("-", "").encode())
        if at is None:
            order.unseen.append(one.task_id)
        elif at < one.begun:
            order.synced.append(one.task_id)
        else:
            order.early.append(one.task_id)
    return order


def _durable_at(calls: Sequence[Call], wal: str, ids: set[bytes]) -> dict[bytes, float]:
    """Where in the trace each task's commit was on disk: the end of the first sync that began
    after the commit's last write. Infinite if there was none."""
    in_frame: set[bytes] = set()  # ids seen in the transaction that is being written
    written: dict[bytes, int] = {}  # committed, not synced yet; and where the last write ended
    durable: dict[bytes, float] = {}
    commits = False
    for call in calls:
        if call.on != wal:
            continue
        if call.name in _SYNCS:
            for task_id in [one for one, ended in written.items() if ended < call.begun]:
                durable[task_id] = call.ended
                del written[task_id]
        elif call.name == "pwrite64":
            if (call.offset - _WAL_HEADER) % (_FRAME_HEADER + _PAGE) == 0 and call.offset:
                commits = call.data[4:8] != bytes(4)  # the size after a commit; else 0
            page = call.data[-_PAGE:] if len(call.data) >= _PAGE else b""
            in_frame |= {found[1] for found in _STORED_ID.finditer(page)} & ids - durable.keys()
            if page and commits:
                written.update(dict.fromkeys(in_frame - written.keys(), call.ended))
                in_frame = set()
    return durable | dict.fromkeys(written, float("inf"))
