"""HTTP/1.1 by hand: requests into bytes, messages out of bytes."""

from __future__ import annotations

import json
import re
from typing import Final

MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
_length = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE).search
_chunked = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE).search
_task_id = re.compile(rb'"taskId": *"([^"]+)"').search
_webhook_id = re.compile(rb"\r\nwebhook-id: *([^\r]+)", re.IGNORECASE).search

CALLED: Final = (
    b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{"ok":true}'
)


def request(method: str, target: str, host: str, body: object = None) -> bytes:
    """A request with a JSON body, or with none."""
    head = f"{method} {target} HTTP/1.1\r\nhost: {host}\r\naccept: application/json\r\n"
    if body is None:
        return f"{head}\r\n".encode("ascii")
    raw = json.dumps(body, separators=(",", ":")).encode()
    head += f"content-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
    return head.encode("ascii") + raw


def cut(data: bytes, start: int = 0) -> tuple[int, bytes, int] | None:
    """The message that begins at ``start``: where its head ends, its body, and where the next one
    begins. None while it is not whole; raises ValueError if it never will be."""
    head_end = data.find(b"\r\n\r\n", start)
    if head_end < 0:
        return None
    body = head_end + 4
    if found := _length(data, start, head_end):
        end = body + int(found[1])
        if end > MESSAGE_BYTES_MAX:
            raise ValueError("an endless message")
        return (head_end, data[body:end], end) if end <= len(data) else None
    if _chunked(data, start, head_end):
        return _cut_chunks(data, head_end)
    return head_end, b"", body


def _cut_chunks(data: bytes, head_end: int) -> tuple[int, bytes, int] | None:
    parts: list[bytes] = []
    at = head_end + 4
    while (line_end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:line_end].partition(b";")[0], 16)
        if size == 0:
            end = data.find(b"\r\n", line_end + 2)  # trailers are not expected
            return (head_end, b"".join(parts), end + 2) if end >= 0 else None
        parts.append(data[line_end + 2 : line_end + 2 + size])
        at = line_end + 2 + size + 2
    return None


def status_of(data: bytes, start: int) -> int:
    """The status of the answer that begins at ``start``; raises ValueError if it is none."""
    if data[start : start + 7] != b"HTTP/1.":
        raise ValueError("not an HTTP/1.1 answer")
    return int(data[start + 9 : start + 12])


def closes(data: bytes, start: int, head_end: int) -> bool:
    """Whether the peer closes the connection after this message."""
    return b"connection: close" in data[start:head_end].lower()


def called_for(head: bytes) -> bytes:
    """The task that a callback is for; empty if it does not say."""
    found = _webhook_id(head)
    return found[1].rstrip() if found else b""


def task_ids(body: bytes, count: int) -> list[bytes]:
    """The tasks that a create made: ``count`` of them, or it raises ValueError."""
    if count == 1 and (found := _task_id(body)):
        return [found[1]]
    ids = [str(entry["taskId"]).encode() for entry in json.loads(body).get("tasks", ())]
    if len(ids) != count:
        raise ValueError(f"{len(ids)} tasks created instead of {count}")
    return ids
