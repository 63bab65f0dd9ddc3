"""The status stream: everything that happens, once, in order; and nobody waits for a watcher."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream
from wsproto.connection import Connection as WebsocketConnection, ConnectionType
from wsproto.events import TextMessage

from engine import EngineConfig, EventBatch
from engine.core.outcome import Answer as CallbackAnswer
from tests.support.app import V1, Api, Closed, Websocket, conform, open_api
from tests.support.builders import a_task, an_event
from tests.support.fakes import ScriptedNet
from web.server import serve
from web.settings import ServerConfig, WebSettings
from web.stream import encode_event, frames

BAD_HOOK = "http://receiver.test/bad"
WHOLE_LIFE = ["Queued", "Pending", "Processing", "Completed"]
SMALL = EngineConfig(executors=4, event_page=5, watcher_buffer=20)
FORGETFUL = EngineConfig(executors=4, event_retention_s=10, prune_interval_s=1)
CAUGHT_UP = EngineConfig(executors=4, watchers_max=2)


@pytest.fixture
def net() -> ScriptedNet:
    net = ScriptedNet()
    net.script(BAD_HOOK, CallbackAnswer(status_code=410))
    return net


@pytest.fixture
async def api(net: ScriptedNet) -> AsyncIterator[Api]:
    async with open_api(net=net, config=SMALL) as opened:
        yield opened


def tos(events: Sequence[Any]) -> list[str]:
    return [event["to"] for event in events]


def seqs(events: Sequence[Any]) -> list[int]:
    return [event["seq"] for event in events]


async def closed(ws: Websocket) -> Closed:
    """How the server ends it, whatever it says before."""
    with pytest.raises(Closed) as caught:
        await forever(ws.receive)
    return caught.value


async def forever(receive: Callable[[], Awaitable[Any]], seen: list[Any] | None = None) -> None:
    """Receive until that raises."""
    while True:
        message = await receive()
        if seen is not None:
            seen.append(message)


# -- websocket: what is sent -----------------------------------------------------------------


async def test_a_subscription_is_confirmed_with_where_it_begins(api: Api) -> None:
    async with api.websocket() as ws:
        assert await ws.subscribe() == {"subscribed": True, "seq": 0}
    await api.create()
    async with api.websocket() as ws:
        assert await ws.subscribe() == {"subscribed": True, "seq": 1}


async def test_every_change_of_status_is_one_message(api: Api) -> None:
    async with api.websocket() as ws:
        await ws.subscribe()
        task_id = await api.executed(callbackUrl=BAD_HOOK)
        events = await ws.events(4)
    assert [(event["from"], event["to"]) for event in events] == [
        (None, "Queued"),
        ("Queued", "Pending"),
        ("Pending", "Processing"),
        ("Processing", "Failed"),
    ]
    assert seqs(events) == [1, 2, 3, 4]
    assert [event["attempt"] for event in events] == [0, 0, 1, 1]
    assert {(event["taskId"], event["name"]) for event in events} == {(task_id, "invoice")}
    assert "reason" not in events[0]
    assert "callbackResult" not in events[0]
    assert events[-1]["callbackResult"]["statusCode"] == 410
    assert "410" in events[-1]["reason"]
    for event in events:
        full = {"reason": None, "callbackResult": None, **event}
        conform(full, {"$ref": "#/components/schemas/EventView"})


@pytest.mark.parametrize("wanted", ["taskIds", "names", "statuses", "both"])
async def test_a_watcher_gets_only_what_it_wants(api: Api, wanted: str) -> None:
    other = await api.create("other")
    mine = await api.create("mine")
    filters: dict[str, Any] = {
        "taskIds": {"taskIds": [mine]},
        "names": {"names": ["mine", "another"]},
        "statuses": {"statuses": ["Cancelled", "Completed"]},
        "both": {"names": ["mine"], "statuses": ["Pending"]},
    }
    async with api.websocket() as live, api.websocket() as resumed:
        await live.subscribe(**filters[wanted])
        for task_id in (other, mine):
            await api.post(f"{V1}/tasks/{task_id}/dequeue")
            await api.post(f"{V1}/tasks/{task_id}/execute")
        await resumed.subscribe(**filters[wanted], after=2)
        expected = {
            "taskIds": [(mine, to) for to in WHOLE_LIFE[1:]],
            "names": [(mine, to) for to in WHOLE_LIFE[1:]],
            "statuses": [(other, "Completed"), (mine, "Completed")],
            "both": [(mine, "Pending")],
        }[wanted]
        for ws in (live, resumed):
            events = await ws.events(len(expected))
            assert [(event["taskId"], event["to"]) for event in events] == expected


async def test_ids_are_known_in_any_spelling(api: Api) -> None:
    task_id = await api.create()
    async with api.websocket() as ws:
        await ws.subscribe(taskIds=[task_id.upper()], after=0)
        assert tos(await ws.events(1)) == ["Queued"]


# -- websocket: resuming ---------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 4, 5, 6, 22, 23])
async def test_what_was_missed_comes_first_then_what_happens(api: Api, after: int) -> None:
    for _ in range(23):  # several pages, and more than a watcher's buffer
        await api.create()
    async with api.websocket() as ws:
        assert await ws.subscribe(after=after) == {"subscribed": True, "seq": after}
        events = await ws.events(23 - after)
        await api.create()
        events += await ws.events(1)
    assert seqs(events) == list(range(after + 1, 25))


async def test_a_watcher_can_resume_again_and_again_while_things_happen(api: Api) -> None:
    seen: list[int] = []
    done = trio.Event()

    async def create() -> None:
        for _ in range(60):
            await api.create()
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(create)
        while len(seen) < 60:
            async with api.websocket() as ws:
                await ws.subscribe(after=seen[-1] if seen else 0)
                seen += seqs(await ws.events(min(7, 60 - len(seen))))
    assert done.is_set()
    assert seen == list(range(1, 61))


async def test_a_watcher_that_resumes_into_a_busy_engine_misses_nothing(api: Api) -> None:
    for _ in range(40):
        await api.create()
    async with trio.open_nursery() as nursery, api.websocket() as ws:

        async def create() -> None:
            for _ in range(15):
                await api.create()

        nursery.start_soon(create)
        await ws.subscribe(after=0)
        assert seqs(await ws.events(55)) == list(range(1, 56))


async def test_events_that_were_never_written_cannot_be_resumed_from(api: Api) -> None:
    await api.create()
    async with api.websocket() as ws:
        await ws.send({"subscribe": {"after": 2}})
        end = await closed(ws)
        assert (end.code, end.reason) == (4010, "there is no event 2 yet; the newest is 1")


async def test_events_that_are_no_longer_kept_cannot_be_resumed_from(
    net: ScriptedNet, autojump_clock: MockClock
) -> None:
    async with open_api(net=net, config=FORGETFUL) as api:
        for _ in range(3):
            await api.create()
        await trio.sleep(15)
        await api.create()
        for after in (0, 1, 2):
            async with api.websocket() as ws:
                await ws.send({"subscribe": {"after": after}})
                end = await closed(ws)
                reason = f"events after {after} are gone; the oldest kept is 4"
                assert (end.code, end.reason) == (4010, reason)
        async with api.websocket() as ws:
            await ws.subscribe(after=3)
            assert seqs(await ws.events(1)) == [4]


# -- websocket: snapshot ---------------------------------------------------------------------


async def test_a_snapshot_shows_the_tasks_that_match(api: Api) -> None:
    first, second = await api.create(payload={"n": 1}), await api.create("other")
    done = await api.executed()
    async with api.websocket() as ws:
        shown = await ws.subscribe(snapshot=True)
        assert [task["taskId"] for task in shown["snapshot"]] == [done, second, first]
        assert (shown["seq"], shown["complete"]) == (6, True)
        conform(shown["snapshot"][2], {"$ref": "#/components/schemas/TaskView"})
        assert shown["snapshot"][2] == await api.task(first)
        assert await ws.receive() == {"subscribed": True, "seq": 6}
    async with api.websocket() as ws:
        shown = await ws.subscribe(snapshot=True, names=["other"], statuses=["Queued"])
        assert [task["taskId"] for task in shown["snapshot"]] == [second]


async def test_a_snapshot_that_is_too_long_says_so(net: ScriptedNet) -> None:
    async with open_api(net=net, settings=WebSettings(snapshot_max=2)) as api:
        ids = [await api.create() for _ in range(3)]
        async with api.websocket() as ws:
            shown = await ws.subscribe(snapshot=True)
            assert [task["taskId"] for task in shown["snapshot"]] == ids[:0:-1]
            assert shown["complete"] is False


@pytest.mark.slow
@pytest.mark.parametrize("database", ["memory:", "sqlite:///{folder}/tasks.db"])
async def test_a_snapshot_and_its_tail_fit_together_while_tasks_change(
    tmp_path: Any, net: ScriptedNet, database: str
) -> None:
    async with open_api(net=net, database=database.format(folder=tmp_path)) as api:
        for _ in range(5):
            await api.create(dispatch="auto")
        known: list[dict[str, str]] = []

        async def follow() -> None:
            """Build a picture from a snapshot and the events behind it."""
            async with api.websocket() as ws:
                shown = await ws.subscribe(snapshot=True)
                picture = {task["taskId"]: task["status"] for task in shown["snapshot"]}
                await ws.receive()
                for seq in itertools.count(shown["seq"] + 1):
                    if len(picture) == 15 and set(picture.values()) == {"Completed"}:
                        break
                    (event,) = await ws.events(1)
                    assert event["seq"] == seq
                    assert event["from"] == picture.get(event["taskId"])
                    picture[event["taskId"]] = event["to"]
                known.append(picture)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(follow)
                    await api.create(dispatch="auto")
        assert len(known) == 10


# -- websocket: silence, slowness, misuse ----------------------------------------------------


async def test_a_quiet_stream_says_that_it_lives(
    net: ScriptedNet, autojump_clock: MockClock
) -> None:
    async with open_api(net=net, settings=WebSettings(heartbeat_s=3)) as api:
        await api.create()
        async with api.websocket() as ws:
            await ws.subscribe()
            for n in (1, 2):
                assert await ws.receive() == {"heartbeat": True, "seq": 1}
                assert trio.current_time() == pytest.approx(3 * n)
            await api.create()
            assert tos(await ws.events(1)) == ["Queued"]


async def test_the_heartbeat_comes_every_fifteen_seconds_by_default(
    api: Api, autojump_clock: MockClock
) -> None:
    async with api.websocket() as ws:
        await ws.subscribe()
        await ws.receive()
    assert trio.current_time() == pytest.approx(15)


async def test_a_watcher_that_lags_is_told_where_to_resume(api: Api) -> None:
    async with api.websocket() as ws:
        await ws.subscribe()
        await api.create()
        seen = await ws.events(1)
        for _ in range(30):  # it does not receive meanwhile
            await api.create()
        with pytest.raises(Closed) as caught:
            await forever(ws.receive, seen)
        assert caught.value.code == 4008
        assert caught.value.reason == f"too slow: resume after {len(seen)}"
    async with api.websocket() as ws:
        await ws.subscribe(after=len(seen))
        seen += await ws.events(31 - len(seen))
    assert seqs(seen) == list(range(1, 32))


async def test_a_slow_watcher_does_not_slow_tasks_or_other_watchers(
    net: ScriptedNet, autojump_clock: MockClock
) -> None:
    async with open_api(net=net, config=SMALL) as api:
        async with api.websocket() as slow, api.websocket() as quick:
            await slow.subscribe()
            await quick.subscribe()
            for n in range(30):
                await api.executed()
                assert len(await quick.events(4)) == 4, n
            assert trio.current_time() == 0  # nobody has waited
            assert (await closed(slow)).code == 4008


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("hello", "is not JSON"),
        ("", "is not JSON: Expecting value"),
        (b"", "not JSON"),
        (b"\xff", "not UTF-8"),
        ("{}", "/subscribe"),
        ({"unsubscribe": {}}, "/subscribe"),
        ({"subscribe": []}, "must be an object"),
        ({"subscribe": {"statuses": ["Lost"]}}, "/subscribe/statuses/0"),
        ({"subscribe": {"names": "abc"}}, "/subscribe/names"),
        ({"subscribe": {"after": -1}}, "/subscribe/after"),
        ({"subscribe": {"after": "1"}}, "/subscribe/after"),
        ({"subscribe": {"after": None, "colour": 1}}, "/subscribe/colour"),
        ({"subscribe": {"taskIds": ["nonsense"]}}, "/subscribe/taskIds/0"),
        ('{"subscribe": {"after": NaN}}', "NaN"),
        ("[" * 1000, "nested deeper"),
    ],
)
async def test_a_bad_first_message_ends_the_stream_and_says_why(
    api: Api, message: Any, says: str
) -> None:
    async with api.websocket() as ws:
        await ws.send(message)
        end = await closed(ws)
    assert end.code == 4000
    assert says in end.reason
    assert len(end.reason.encode()) <= 123  # RFC 6455 §5.5


async def test_reasons_fit_into_a_close_frame_in_any_language(api: Api) -> None:
    async with api.websocket() as ws:
        await ws.send({"subscribe": {"☎" * 1000: 1}})
        end = await closed(ws)
    assert end.code == 4000
    assert 0 < len(end.reason.encode()) <= 123


async def test_a_second_message_ends_the_stream(api: Api) -> None:
    async with api.websocket() as ws:
        await ws.subscribe()
        await ws.send({"subscribe": {}})
        assert (await closed(ws)).code == 4000
    assert (await api.engine.stats()).watchers == 0


async def test_a_client_that_does_not_subscribe_is_closed(
    api: Api, autojump_clock: MockClock
) -> None:
    async with api.websocket() as ws:
        assert (await closed(ws)).code == 4000
    assert trio.current_time() == pytest.approx(10)


async def test_a_watcher_that_leaves_is_forgotten(api: Api) -> None:
    task_id = await api.create()
    async with api.websocket() as one, api.websocket() as two, api.websocket() as three:
        await one.subscribe()
        await two.subscribe(taskIds=[task_id])
        assert (await api.engine.stats()).watchers == 2
        three.leave()  # before it subscribed
        one.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert (await api.engine.stats()).watchers == 1
    assert (await api.engine.stats()).watchers == 0


async def test_a_watcher_too_many_is_asked_to_come_later(net: ScriptedNet) -> None:
    async with open_api(net=net, config=CAUGHT_UP) as api:
        async with api.websocket() as one, api.websocket() as two, api.websocket() as three:
            await one.subscribe()
            await two.subscribe()
            await three.send({"subscribe": {}})
            assert (await closed(three)).code == 1013
            answer = await api.call("GET", f"{V1}/events", documented=False)
            assert answer.status == 503
            assert "Retry-After" in answer.headers


async def test_a_stopping_engine_says_goodbye(api: Api) -> None:
    async with api.websocket() as ws:
        await ws.subscribe()
        api.engine.stop()
        assert (await closed(ws)).code == 1001


# -- over a real socket ----------------------------------------------------------------------


async def test_the_stream_works_through_the_server(api: Api) -> None:
    async with served(api) as url:
        async with real_websocket(url) as ws:
            await ws.send_message('{"subscribe": {"after": 0}}')
            assert json.loads(await ws.get_message()) == {"subscribed": True, "seq": 0}
            await api.executed()
            assert tos([json.loads(text) for text in await messages(ws, 4)]) == WHOLE_LIFE
            assert (await api.engine.stats()).watchers == 1
        await until_nobody_watches(api)
        async with real_websocket(url) as ws:
            await ws.send_message(b"")
            with pytest.raises(ConnectionClosed) as caught:
                await ws.get_message()
            assert caught.value.reason is not None
            assert caught.value.reason.code == 4000
            assert "not JSON" in (caught.value.reason.reason or "")


@asynccontextmanager
async def real_websocket(url: str) -> AsyncIterator[WebSocketConnection]:
    """A client on a socket that is closed for certain."""
    host, port = url.removeprefix("http://").split(":")
    async with trio.open_nursery() as nursery, await trio.open_tcp_stream(host, int(port)) as tcp:
        yield await wrap_client_stream(nursery, tcp, host, f"{V1}/tasks/stream")
        nursery.cancel_scope.cancel(reason="the client leaves")


@asynccontextmanager
async def served(api: Api, **settings: Any) -> AsyncIterator[str]:
    """The app behind a real server; its URL."""
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        config = ServerConfig(port=0, **settings)
        (url,) = await nursery.start(partial(serve, api.app, config, shutdown_trigger=stop.wait))
        yield url
        stop.set()


async def subscribed(ws: WebSocketConnection, **wanted: Any) -> None:
    await ws.send_message(json.dumps({"subscribe": wanted}))
    assert json.loads(await ws.get_message())["subscribed"]


async def messages(ws: WebSocketConnection, number: int) -> list[str]:
    """The next messages, as they were sent."""
    with trio.fail_after(60):
        return [str(await ws.get_message()) for _ in range(number)]


async def test_all_clients_of_a_server_get_the_same_messages_as_those_of_another(
    api: Api,
) -> None:
    """Ringback's own server takes finished frames; any other gets message by message."""
    async with served(api) as url, AsyncExitStack() as opened:
        clients = [await opened.enter_async_context(real_websocket(url)) for _ in range(5)]
        for client in clients:
            await subscribed(client)
        elsewhere = await opened.enter_async_context(api.websocket())
        await elsewhere.subscribe()
        await api.executed(name="☎ or \n", callbackUrl=BAD_HOOK)
        await api.executed(name="n" * 200)
        expected = await elsewhere.events(8)
        received = [await messages(client, 8) for client in clients]
    assert [json.loads(message) for message in received[0]] == expected
    assert received == [received[0]] * 5


@pytest.mark.parametrize("size", [0, 60, 125, 126, 1000, 65_535, 65_536, 200_000])
def test_frames_are_what_a_client_expects(size: int) -> None:
    task = a_task(1, name="é" * size)
    batch = EventBatch((an_event(task, seq=1), an_event(task, seq=2)))
    client = WebsocketConnection(ConnectionType.CLIENT)
    client.receive_data(frames(batch))
    received = [event for event in client.events() if isinstance(event, TextMessage)]
    texts = "".join(event.data + "\n" * event.message_finished for event in received)
    assert texts.splitlines() == [encode_event(event) for event in batch]


async def test_real_clients_of_all_kinds_and_speeds_get_all_that_is_theirs(
    net: ScriptedNet,
) -> None:
    async with open_api(net=net) as api, served(api) as url:
        first = await api.create("first")
        wishes: list[dict[str, Any]] = [
            {},
            {"statuses": ["Completed"]},
            {"names": ["first", "name 1"]},
            {"taskIds": [first], "statuses": ["Queued", "Cancelled"]},
            *({"after": after} for after in (0, 1)),
            *({"after": 0, "names": [f"name {n}"]} for n in range(3)),
        ]
        received: list[list[Any]] = [[] for _ in wishes]

        async def follow(number: int, *, task_status: trio.TaskStatus[None]) -> None:
            async with real_websocket(url) as ws:
                await subscribed(ws, **wishes[number])
                task_status.started()
                while True:
                    received[number] += [json.loads(text) for text in await messages(ws, 1)]
                    await trio.sleep(number % 4 / 1000)

        async with trio.open_nursery() as nursery, api.websocket() as reference:
            for number in range(len(wishes)):
                await nursery.start(follow, number)
            for n in range(12):
                await api.executed(name=f"name {n % 3}")
            await api.delete(f"{V1}/tasks/{first}")
            await reference.subscribe(after=0)
            events = await reference.events(50)
            expected = [
                [event for event in events if wishes_for(wanted, event)] for wanted in wishes
            ]
            with trio.fail_after(30):
                while list(map(len, received)) != list(map(len, expected)):  # noqa: ASYNC110
                    await trio.sleep(0.005)
            nursery.cancel_scope.cancel(reason="all have all")
    assert received == expected


def wishes_for(wanted: dict[str, Any], event: Any) -> bool:
    """Whether who subscribed like this after the first event should get this one."""
    return (
        event["seq"] > wanted.get("after", 1)
        and event["to"] in wanted.get("statuses", [event["to"]])
        and event["name"] in wanted.get("names", [event["name"]])
        and event["taskId"] in wanted.get("taskIds", [event["taskId"]])
    )


@pytest.mark.parametrize("after", range(0, 13, 3))
async def test_a_real_client_resumes_from_anywhere_while_things_happen(
    api: Api, after: int
) -> None:
    for _ in range(3):
        await api.executed()
    async with served(api) as url, real_websocket(url) as ws, trio.open_nursery() as nursery:

        async def go_on() -> None:
            for _ in range(3):
                await api.executed()

        nursery.start_soon(go_on)
        await subscribed(ws, after=after)
        received = [json.loads(text) for text in await messages(ws, 24 - after)]
    assert seqs(received) == list(range(after + 1, 25))


async def test_a_heartbeat_counts_from_the_last_message(
    net: ScriptedNet, autojump_clock: MockClock
) -> None:
    async with open_api(net=net, settings=WebSettings(heartbeat_s=3)) as api:
        async with api.websocket() as ws:
            await ws.subscribe()
            await trio.sleep(2)
            await api.create()
            assert tos(await ws.events(1)) == ["Queued"]
            assert await ws.receive() == {"heartbeat": True, "seq": 1}
            assert trio.current_time() == pytest.approx(5)


async def test_who_does_not_read_gets_no_heartbeats_on_top(
    net: ScriptedNet, autojump_clock: MockClock
) -> None:
    async with open_api(net=net, settings=WebSettings(heartbeat_s=3)) as api:
        async with api.websocket() as ws:
            await ws.subscribe()
            await api.create()
            await trio.sleep(10)  # its server waits to send
            await api.create()
            assert seqs([await ws.receive(), await ws.receive()]) == [1, 2]


async def until_nobody_watches(api: Api) -> None:
    with trio.fail_after(5):
        while (await api.engine.stats()).watchers:  # noqa: ASYNC110
            await trio.sleep(0.005)


# -- server-sent events ----------------------------------------------------------------------


async def test_server_sent_events_show_the_same_as_the_websocket(api: Api) -> None:
    async with api.event_source() as source, api.websocket() as ws:
        await ws.subscribe()
        await api.executed()
        events = await source.events(4)
        assert events == await ws.events(4)
    assert tos(events) == WHOLE_LIFE


async def test_the_event_stream_is_typed_and_never_cached(api: Api) -> None:
    async with api.event_source() as source:
        assert source.status == 200
        assert source.headers["Content-Type"].startswith("text/event-stream")
        assert source.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("after", [0, 5, 11, 12])
@pytest.mark.parametrize("by_header", [True, False])
async def test_an_event_source_resumes_where_it_was(api: Api, after: int, by_header: bool) -> None:
    for _ in range(12):
        await api.create()
    # A browser repeats the URL it began with: the header counts.
    query = "?after=3" if by_header else f"?after={after}"
    headers = {"Last_Event_ID": str(after)} if by_header else {}
    async with api.event_source(query, **headers) as source:
        events = await source.events(12 - after)
        await api.create()
        events += await source.events(1)
    assert seqs(events) == list(range(after + 1, 14))


@pytest.mark.parametrize("header", ["", "abc", "-1", "²", "9" * 30])
async def test_a_last_event_id_that_is_none_of_ours_is_ignored(api: Api, header: str) -> None:
    for _ in range(3):
        await api.create()
    async with api.event_source("?after=2", Last_Event_ID=header) as source:
        assert seqs(await source.events(1)) == [3]


async def test_an_event_source_can_filter(api: Api) -> None:
    one, two = await api.create("a"), await api.create("b")
    query = f"?taskId={one},{two.upper()}&name=b,c&status=Queued,Cancelled&after=0"
    async with api.event_source(query) as source:
        await api.delete(f"{V1}/tasks/{one}")
        await api.delete(f"{V1}/tasks/{two}")
        events = await source.events(2)
    assert [(event["taskId"], event["to"]) for event in events] == [
        (two, "Queued"),
        (two, "Cancelled"),
    ]


async def test_an_event_source_can_begin_with_a_snapshot(api: Api) -> None:
    task_id = await api.create()
    async with api.event_source("?snapshot=true") as source:
        frame = await source.frame()
        assert frame["event"] == "snapshot"
        shown = json.loads(frame["data"])
        assert [task["taskId"] for task in shown["snapshot"]] == [task_id]
        await api.create()
        assert seqs(await source.events(1)) == [shown["seq"] + 1]


async def test_a_quiet_event_source_gets_comments(
    net: ScriptedNet, autojump_clock: MockClock
) -> None:
    async with open_api(net=net, settings=WebSettings(heartbeat_s=3)) as api:
        async with api.event_source() as source:
            assert await source.frame() == {"": "heartbeat"}
            assert trio.current_time() == pytest.approx(3)


async def test_an_event_source_that_resumes_too_late_is_told_what_is_gone(
    net: ScriptedNet, autojump_clock: MockClock
) -> None:
    async with open_api(net=net, config=FORGETFUL) as api:
        for _ in range(3):
            await api.create()
        await trio.sleep(15)
        await api.create()
        answer = await api.call("GET", f"{V1}/events?after=1", documented=False)
        assert (answer.status, answer.kind) == (410, "cursor-expired")
        async with api.event_source("?after=3") as source:
            assert seqs(await source.events(1)) == [4]


async def test_an_event_source_that_lags_is_told_where_to_resume(api: Api) -> None:
    async with api.event_source() as source:
        for _ in range(60):
            await api.create()
            await trio.testing.wait_all_tasks_blocked()
        seen: list[Any] = []
        while (frame := await source.frame())["event"] == "status":
            seen.append(json.loads(frame["data"]))
        assert frame["event"] == "lagged"
        assert json.loads(frame["data"])["seq"] == seen[-1]["seq"]
        assert seqs(seen) == list(range(1, len(seen) + 1))


async def test_an_event_source_is_told_of_the_end(api: Api) -> None:
    async with api.event_source() as source:
        api.engine.stop()
        assert (await source.frame())["event"] == "end"


async def test_an_event_source_that_leaves_is_forgotten(api: Api) -> None:
    async with api.event_source(), api.event_source("?after=0"):
        await trio.testing.wait_all_tasks_blocked()
        assert (await api.engine.stats()).watchers == 2
    assert (await api.engine.stats()).watchers == 0


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("after=-1", ["/after"]),
        ("after=x", ["/after"]),
        ("status=Lost,Queued", ["/status"]),
        ("taskId=nonsense", ["/taskId"]),
        ("snapshot=maybe", ["/snapshot"]),
        ("colour=red", ["/colour"]),
        ("after=1&after=2", ["/after"]),
    ],
)
async def test_a_bad_wish_for_events_is_named(api: Api, query: str, pointers: list[str]) -> None:
    answer = await api.call("GET", f"{V1}/events?{query}", documented=False)
    assert (answer.status, answer.pointers) == (400, pointers)
