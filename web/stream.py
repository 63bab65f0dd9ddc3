"""The status stream: a websocket, and the same as server-sent events.

Both are thin: ``engine.Watch`` gives events without gap or repetition, and drops who is too slow.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import lru_cache
from struct import pack
from types import TracebackType
from typing import Annotated, Final, NoReturn, Self, cast
from uuid import UUID

import attrs
import trio
from quart import websocket
from quart.wrappers.response import ResponseBody

from engine import Engine, Event, EventBatch, EventFilter, Status, TaskQuery, Watch
from engine.core.rules import Rule, between
from engine.errors import CursorExpired, EngineError, EngineStopping, WatcherLagged

from . import strict_json
from .problems import invalid
from .protocol import SEND_FRAMES
from .router import Call, EventStream, Reply, Router
from .schemas import EventsQuery
from .settings import WebSettings
from .structuring import BODY, Invalid, structure
from .views import event_view, task_view

CLOSE_GOING_AWAY = 1001
CLOSE_TRY_LATER = 1013
CLOSE_BAD_MESSAGE = 4000
CLOSE_LAGGED = 4008
CLOSE_EXPIRED = 4010

Goodbye = tuple[int, str]
SendFrames = Callable[[bytes], Awaitable[None]]

_WHOLE_TEXT: Final = 0x81  # a text message in one frame (RFC 6455 §5.2)

router = Router("stream", "/api/v1")


def _broken_id(value: str) -> str | None:
    try:
        UUID(value)
    except ValueError:
        return "is not a task id"
    return None


_TASK_ID = Rule(_broken_id, {"format": "uuid"})


@attrs.frozen(kw_only=True)
class Subscribe:
    """What a client of the websocket asks for."""

    task_ids: list[Annotated[str, _TASK_ID]] = attrs.field(factory=list)
    statuses: list[Status] = attrs.field(factory=list)
    names: list[str] = attrs.field(factory=list)
    after: Annotated[int, between(0, 2**62)] | None = None
    snapshot: bool = False

    def filter(self) -> EventFilter:
        """As the engine wants it."""
        return EventFilter(
            task_ids=frozenset(str(UUID(text)) for text in self.task_ids),
            statuses=frozenset(self.statuses),
            names=frozenset(self.names),
        )


@attrs.frozen(kw_only=True)
class ClientMessage:
    """What a client of the websocket sends, once."""

    subscribe: Subscribe


async def stream(engine: Engine, settings: WebSettings) -> None:
    """Serve one websocket client. Quart cancels this when the client leaves."""
    await websocket.accept()
    try:
        with trio.fail_after(settings.subscribe_timeout_s):
            subscribe = _parse(await websocket.receive(), settings)
    except (Invalid, strict_json.BadJson) as error:
        await websocket.close(CLOSE_BAD_MESSAGE, _reason(error))
        return
    except trio.TooSlowError:
        await websocket.close(CLOSE_BAD_MESSAGE, "send a subscribe message first")
        return
    client = _Client(settings.heartbeat_s)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.attend, nursery.cancel_scope)
        goodbye: Goodbye = (CLOSE_BAD_MESSAGE, "one subscribe message per connection")
        goodbye = await _serve(engine, settings, subscribe, client)
        nursery.cancel_scope.cancel(reason="the stream has ended")
    await websocket.close(*goodbye)


class _Client:
    """A websocket that events are sent to, and heartbeats in between."""

    def __init__(self, heartbeat_s: float) -> None:
        self._heartbeat_s = heartbeat_s
        extensions = cast("dict[str, object]", websocket.scope.get("extensions") or {})
        self._send_frames = cast("SendFrames | None", extensions.get(SEND_FRAMES))
        self._watch: Watch | None = None  # what the heartbeats speak of
        self._sending = False
        self._sent_at = trio.current_time()

    async def follow(self, watch: Watch) -> NoReturn:
        """Confirm the subscription, then send what happens."""
        await websocket.send(json.dumps({"subscribed": True, "seq": watch.position}))
        self._sent_at, self._watch = trio.current_time(), watch
        while True:
            batch = await watch.receive()
            self._sending = True
            await self._send(batch)
            self._sending, self._sent_at = False, trio.current_time()

    async def _send(self, batch: EventBatch) -> None:
        if self._send_frames is not None:
            await self._send_frames(batch.form(frames))
        else:
            for event in batch:
                await websocket.send(encode_event(event))

    async def attend(self, scope: trio.CancelScope) -> None:
        """Say that we live when nothing is sent. End the stream if the client says more.

        Beside ``follow``, because a time limit on each wait would cost more than the wait.
        """
        while True:
            with trio.move_on_at(self._heartbeat_due()):
                await websocket.receive()
                scope.cancel(reason="the client sent a second message")
                return
            if self._watch is not None and self._heartbeat_due() <= trio.current_time():
                self._sent_at = trio.current_time()
                await websocket.send(json.dumps({"heartbeat": True, "seq": self._watch.position}))

    def _heartbeat_due(self) -> float:
        busy = self._watch is None or self._sending
        return (trio.current_time() if busy else self._sent_at) + self._heartbeat_s


def _parse(message: str | bytes, settings: WebSettings) -> Subscribe:
    # Quart gives nothing for an empty binary message.
    raw = message.encode("utf-8", "surrogatepass") if isinstance(message, str) else message or b""
    document = strict_json.loads(raw, settings.json_depth_max)
    return structure(BODY, document, ClientMessage).subscribe


async def _serve(
    engine: Engine, settings: WebSettings, subscribe: Subscribe, client: _Client
) -> Goodbye:
    """Send what is asked for until there is a reason to stop; returns that."""
    try:
        after = subscribe.after
        if subscribe.snapshot:
            after, shown = await _snapshot(engine, settings, subscribe.filter())
            await websocket.send(shown)
        async with engine.watch(subscribe.filter(), after=after) as watch:
            await client.follow(watch)
    except CursorExpired as error:
        return CLOSE_EXPIRED, str(error)
    except WatcherLagged as error:
        return CLOSE_LAGGED, f"too slow: resume after {error.last_seq}"
    except EngineStopping:
        return CLOSE_GOING_AWAY, "the server stops"
    except EngineError as error:
        return CLOSE_TRY_LATER, _reason(error)


def _reason(error: Exception) -> str:
    """What a close frame has room for (RFC 6455 §5.5)."""
    return str(error).encode()[:123].decode(errors="ignore")


async def _snapshot(engine: Engine, settings: WebSettings, wanted: EventFilter) -> tuple[int, str]:
    """All tasks that match as they are now, in one message; and the event they are as of."""
    query = TaskQuery(task_ids=wanted.task_ids, statuses=wanted.statuses, names=wanted.names)
    seq, tasks = await engine.snapshot(query, settings.snapshot_max + 1)
    complete = len(tasks) <= settings.snapshot_max
    shown = [BODY.unstructure(task_view(task)) for task in tasks[: settings.snapshot_max]]
    return seq, json.dumps(
        {"snapshot": shown, "seq": seq, "complete": complete}, ensure_ascii=False
    )


@lru_cache(maxsize=4096)
def encode_event(event: Event) -> str:
    """An event as JSON, made once for all watchers; absent members are left out."""
    document = BODY.unstructure(event_view(event))
    for name in ("reason", "callbackResult"):
        if document[name] is None:
            del document[name]
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def frames(batch: EventBatch) -> bytes:
    """A finished websocket message for each event. A server's are not masked (RFC 6455 §5.1), so
    they are the same for all clients."""
    return b"".join(map(_frame, batch))


def _frame(event: Event) -> bytes:
    payload = encode_event(event).encode()
    size = len(payload)
    if size < 126:
        return bytes((_WHOLE_TEXT, size)) + payload
    if size < 1 << 16:
        return pack("!BBH", _WHOLE_TEXT, 126, size) + payload
    return pack("!BBQ", _WHOLE_TEXT, 127, size) + payload


# -- server-sent events ----------------------------------------------------------------------


@router.add(
    "GET",
    "/events",
    "Stream changes of status as server-sent events",
    query=EventsQuery,
    headers=("Last-Event-ID",),
    answers={200: EventStream},
    problems=(400, 410, 503),
)
async def server_sent_events(call: Call) -> Reply:
    """``id`` is the ``seq``; ``Last-Event-ID`` resumes."""
    engine = call.engine
    after = _last_event_id(call)
    if after is not None:
        await engine.check_cursor(after)
    wanted = _sse_filter(call.query)
    async with engine.watch(wanted):
        pass  # raises while a refusal can still be sent: too many watchers, or stopping
    shown = None
    if call.query.snapshot:
        after, shown = await _snapshot(engine, call.settings, wanted)
    body = _EventStream(engine, call.settings.heartbeat_s, wanted, after, shown)
    return Reply(
        body=body,
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        },
    )


def _last_event_id(call: Call) -> int | None:
    header = call.headers.get("Last-Event-ID", "")
    if header.isascii() and header.isdigit() and len(header) < 19:
        return int(header)
    after: int | None = call.query.after
    return after


def _sse_filter(query: EventsQuery) -> EventFilter:
    statuses = (query.status or "").split(",") if query.status else []
    document = {
        "taskIds": query.task_id.split(",") if query.task_id else [],
        "statuses": statuses,
        "names": query.name.split(",") if query.name else [],
    }
    try:
        return structure(BODY, document, Subscribe).filter()
    except Invalid as error:
        raise invalid(
            [(_PARAMETERS[where.split("/")[1]], text) for where, text in error.problems]
        ) from None


_PARAMETERS = {"taskIds": "/taskId", "statuses": "/status", "names": "/name"}


class _EventStream(ResponseBody):
    """The body: opened when sending begins, closed when the client leaves."""

    def __init__(
        self,
        engine: Engine,
        heartbeat_s: float,
        wanted: EventFilter,
        after: int | None,
        snapshot: str | None,
    ) -> None:
        self._context = engine.watch(wanted, after=after)
        self._heartbeat_s = heartbeat_s
        self._snapshot = snapshot
        self._ended = False

    async def __aenter__(self) -> Self:
        self._watch = await self._context.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._context.__aexit__(kind, error, traceback)  # noqa: ASYNC102 - does not wait

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        if self._snapshot is not None:
            text, self._snapshot = self._snapshot, None
            return f"event: snapshot\ndata: {text}\n\n".encode()
        try:
            with trio.move_on_after(self._heartbeat_s):
                return (await self._watch.receive()).form(_records)
        except EngineError as reason:
            self._ended = True
            kind = "lagged" if isinstance(reason, WatcherLagged) else "end"
            data = json.dumps({"detail": str(reason), "seq": self._watch.position})
            return f"event: {kind}\ndata: {data}\n\n".encode()
        return b": heartbeat\n\n"


def _records(batch: EventBatch) -> bytes:
    """A server-sent event for each event."""
    return "".join(
        f"id: {event.seq}\nevent: status\ndata: {encode_event(event)}\n\n" for event in batch
    ).encode()
