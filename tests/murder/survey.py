"""Everything a server says of its tasks, through its API."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx
import trio

from benchmarks.load import Answer, Connection, closed_loop, request
from engine.core.lifecycle import ENDED
from engine.core.task import ErrorClass, Status
from tests.murder.history import AttemptSeen, CallSeen, EventSeen, Found, TaskSeen

API: Final = "/api/v1"
_PAGE: Final = 250
_CONNECTIONS: Final = 16
_ASK_S: Final = 0.1
_SILENCE_S: Final = 30.0  # longer than the pause between two heartbeats

Json = Mapping[str, Any]


async def survey(url: str, calls: list[CallSeen]) -> Found:
    """All tasks, with all of their attempts and events. ``calls`` may still be filled."""
    with Connection(url) as connection:
        newest: int = (await get(connection, f"{API}/stats"))["newestEvent"]
        tasks = await _tasks(connection)
    events = await read_events(url, newest)
    return Found(
        tasks=tasks,
        attempts=await _attempts(url, [task.id for task in tasks if task.attempt]),
        events=events,
        calls=calls,
    )


async def get(connection: Connection, target: str) -> Any:
    """What is there; anything but a 200 is an error."""
    answer = await connection.ask(request("GET", target))
    assert answer.status == 200, (target, answer)
    return answer.json()


async def until_ended(url: str, within_s: float) -> dict[str, int]:
    """Wait until no task is on its way, but no longer than that. How many there are by status."""
    counts: dict[str, int] = {}
    with Connection(url) as connection, trio.move_on_after(within_s):
        while True:
            counts = (await get(connection, f"{API}/stats"))["counts"]
            if sum(counts.get(status.value, 0) for status in ENDED) == sum(counts.values()):
                break
            await trio.sleep(_ASK_S)
    return counts


async def _tasks(connection: Connection) -> list[TaskSeen]:
    found: list[TaskSeen] = []
    target = f"{API}/tasks?limit={_PAGE}"
    while target:
        page = await get(connection, target)
        found += map(_task, page["tasks"])
        cursor = page.get("nextCursor")
        target = f"{API}/tasks?limit={_PAGE}&cursor={quote(cursor)}" if cursor else ""
    return found


def _task(shown: Json) -> TaskSeen:
    return TaskSeen(
        id=shown["taskId"],
        name=shown["name"],
        status=Status(shown["status"]),
        attempt=shown["attempt"],
        path=urlsplit(shown["callbackUrl"]).path,
        partition_key=shown["partitionKey"],
    )


async def _attempts(url: str, task_ids: list[str]) -> dict[str, list[AttemptSeen]]:
    found: dict[str, list[AttemptSeen]] = {}

    def keep(answer: Answer, _began: float) -> None:
        if attempts := answer.json()["attempts"]:
            found[attempts[0]["taskId"]] = list(map(_attempt, attempts))

    asked = (request("GET", f"{API}/tasks/{task_id}/attempts") for task_id in task_ids)
    asking = closed_loop(url, asked, connections=_CONNECTIONS, wanted=(200,), on_answer=keep)
    assert not (unwanted := (await asking).unwanted), unwanted
    return found


def _attempt(shown: Json) -> AttemptSeen:
    error = shown["result"]["errorClass"]
    return AttemptSeen(
        number=shown["number"],
        error_class=ErrorClass(error) if error else None,
        counted=shown["counted"],
    )


async def read_events(url: str, newest: int) -> list[EventSeen]:
    """The events up to this one."""
    found: list[EventSeen] = []
    while not found or found[-1].seq < newest:
        before, after = len(found), found[-1].seq if found else 0
        with trio.CancelScope() as scope:

            def note(event: EventSeen, scope: trio.CancelScope = scope) -> None:
                found.append(event)
                if event.seq >= newest:
                    scope.cancel()

            await follow(url, after, note)
        assert len(found) > before, f"the stream ended after event {after} of {newest}"
    return found


async def follow(url: str, after: int, note: Callable[[EventSeen], None]) -> bool:
    """Pass every event after this one on, until the server ends the stream or is gone. Whether it
    was the server that ended it; then one may resume."""
    timeout = httpx.Timeout(5.0, read=_SILENCE_S)
    target = f"{url}{API}/events?after={after}"
    async with httpx.AsyncClient(timeout=timeout) as client:
        try:
            async with client.stream("GET", target) as answer:
                assert answer.status_code == 200, answer
                async for line in answer.aiter_lines():
                    if line.startswith('data: {"seq"'):
                        note(_event(json.loads(line.removeprefix("data: "))))
        except httpx.TransportError:
            return False
    return True


def _event(shown: Json) -> EventSeen:
    before = shown["from"]
    return EventSeen(
        seq=shown["seq"],
        task_id=shown["taskId"],
        before=Status(before) if before else None,
        after=Status(shown["to"]),
        attempt=shown["attempt"],
    )
