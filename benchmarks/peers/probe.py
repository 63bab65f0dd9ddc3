"""Whether a stack works: the API answers, and one task goes the whole way."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial

import h11
import trio

from benchmarks.load import CutOffError, ask_once, request

TASKS = "/api/v1/tasks"


async def answers(url: str) -> bool:
    """Whether the API takes requests."""
    try:
        return (await ask_once(url, request("GET", f"{TASKS}/none"))).status < 500
    except (CutOffError, OSError):
        return False


async def goes_the_whole_way(
    url: str, until: Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
) -> None:
    """Create a task, answer its callback, and wait with ``until`` for it to be Completed."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, _answer_callback, listeners)
        port = listeners[0].socket.getsockname()[1]
        task = {"name": "probe", "callbackUrl": f"http://127.0.0.1:{port}/", "payload": {}}
        answer = await ask_once(url, request("POST", TASKS, task))
        await until(partial(_is_completed, url, json.loads(answer.body)["taskId"]))
        nursery.cancel_scope.cancel()


async def _is_completed(url: str, task_id: str) -> bool:
    answer = await ask_once(url, request("GET", f"{TASKS}/{task_id}"))
    return bool(answer.json().get("status") == "Completed")


async def _answer_callback(stream: trio.SocketStream) -> None:
    """200 to one whole request, then the end of the connection."""
    http = h11.Connection(h11.SERVER)
    while not isinstance(event := http.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some())
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
