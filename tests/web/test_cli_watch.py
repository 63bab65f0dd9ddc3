"""``ringback watch`` and the stream client: nothing left out, nothing twice, and a clean end."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from tests.support.cli import NOBODY, Site, lines, open_site, start
from tests.support.server import running_server
from web.cli import main
from web.cli.client import Refused, Unreachable
from web.cli.watching import Message, Subscription, follow

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("server")) as opened:
        yield opened


# -- watch -----------------------------------------------------------------------------------


def test_watch_prints_events_and_stops_after_a_count(site: Site) -> None:
    task_id = site.submit("/good", "--dispatch", "auto", "--wait")
    result = site.run("watch", "--task", task_id, "--after", "0", "--count", "4", "--json")
    assert result.exit_code == 0
    events = lines(result.stdout)
    assert [event["to"] for event in events] == ["Queued", "Pending", "Processing", "Completed"]
    shown = site.run("watch", "--task", task_id, "--after", "0", "--count", "4").stdout
    assert "Processing → Completed  task  (attempt 1, HTTP 200)" in shown


def test_watch_can_begin_with_a_snapshot(site: Site) -> None:
    task_id = site.submit("/good", "--name", "there before")
    with site.start("watch", "--name", "there before", "--snapshot", "--count", "1") as watching:
        assert watching.stdout is not None
        assert task_id in watching.stdout.readline()
        site.run("cancel", task_id)
        assert "Queued → Cancelled" in watching.stdout.readline()
        assert watching.wait(10) == 0


def test_watch_goes_on_behind_the_last_event_when_the_server_comes_back(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        runner = CliRunner(env={"RINGBACK_URL": server.url})
        watching = start("watch", "--json", "--after", "0", url=server.url)
        assert watching.stdout is not None
        assert watching.stderr is not None
        runner.invoke(main, ["submit", NOBODY, "--name", "before"])
        seen = [json.loads(watching.stdout.readline())]
        server.kill()
    with running_server(tmp_path, port=server.port) as server:
        runner.invoke(main, ["submit", NOBODY, "--name", "after the kill"])
        seen.append(json.loads(watching.stdout.readline()))
        server.stop()
    with running_server(tmp_path, port=server.port):
        runner.invoke(main, ["submit", NOBODY, "--name", "after the stop"])
        seen.append(json.loads(watching.stdout.readline()))
        watching.send_signal(signal.SIGINT)
        rest, notes = watching.communicate(timeout=10)
    assert watching.returncode == 0
    assert rest == ""
    assert [(event["seq"], event["name"]) for event in seen] == [
        (1, "before"),
        (2, "after the kill"),
        (3, "after the stop"),
    ]
    assert "resuming after event 1" in notes
    assert "Traceback" not in notes


def test_watch_ends_quietly_when_nobody_reads_its_output(site: Site) -> None:
    watching = site.start("watch", "--after", "0", bufsize=0)
    assert watching.stdout is not None
    assert watching.stderr is not None
    with watching.stderr:
        watching.stdout.readline()
        watching.stdout.close()
        site.submit("/good")
        assert watching.wait(10) == 0
        assert "Traceback" not in watching.stderr.read()


# -- the stream client alone -----------------------------------------------------------------

Script = Callable[[dict[str, Any]], tuple[list[Message], tuple[int, str]]]


async def _follow_scripts(scripts: list[Script], wanted: Subscription, enough: int) -> list[int]:
    """Follow a server that serves the n-th connection with the n-th script."""
    left = list(scripts)
    seen: list[int] = []

    async def serve(request: WebSocketRequest) -> None:
        connection = await request.accept()
        subscribe = json.loads(await connection.get_message())["subscribe"]
        messages, goodbye = left.pop(0)(subscribe)
        try:
            for message in messages:
                await connection.send_message(json.dumps(message))
            await connection.aclose(*goodbye)
        except ConnectionClosed:
            pass  # the client has had enough

    def handle(message: Message) -> bool:
        if "taskId" in message:
            seen.append(message["seq"])
        return len(seen) == enough

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, serve, "127.0.0.1", 0, None))
        url = f"http://127.0.0.1:{server.port}"
        try:
            with trio.fail_after(10):
                await follow(url, wanted, handle, note=lambda _: None, reconnect_s=5)
        finally:
            nursery.cancel_scope.cancel(reason="the test is over")
    return seen


def _event(seq: int) -> Message:
    return {"seq": seq, "taskId": "t"}


async def test_a_lagging_watcher_resumes_behind_the_last_event_it_handled() -> None:
    asked: list[Any] = []

    def first(subscribe: dict[str, Any]) -> tuple[list[Message], tuple[int, str]]:
        asked.append(subscribe)
        return [{"subscribed": True, "seq": 5}, _event(6), _event(7)], (4008, "too slow")

    def second(subscribe: dict[str, Any]) -> tuple[list[Message], tuple[int, str]]:
        asked.append(subscribe)
        return [{"heartbeat": True, "seq": 9}], (1001, "the server stops")

    def third(subscribe: dict[str, Any]) -> tuple[list[Message], tuple[int, str]]:
        asked.append(subscribe)
        return [_event(10)], (1000, "")

    wanted = Subscription(names=["a"], snapshot=True)
    assert await _follow_scripts([first, second, third], wanted, 3) == [6, 7, 10]
    assert [(one.get("after"), one["snapshot"]) for one in asked] == [
        (None, True),
        (7, False),
        (9, False),
    ]
    assert all(one["names"] == ["a"] for one in asked)


async def test_events_that_are_gone_end_the_watch_with_advice() -> None:
    def gone(_: dict[str, Any]) -> tuple[list[Message], tuple[int, str]]:
        return [], (4010, "the oldest event kept is 9")

    with pytest.RaisesGroup(pytest.RaisesExc(Refused, match="oldest event kept is 9.*--snapshot")):
        await _follow_scripts([gone], Subscription(after=1), 1)


async def test_a_server_that_never_says_anything_is_not_tried_for_ever() -> None:
    def shut(_: dict[str, Any]) -> tuple[list[Message], tuple[int, str]]:
        return [], (1013, "too many watchers")

    with pytest.RaisesGroup(pytest.RaisesExc(Unreachable, match="too many watchers")):
        await _follow_scripts([shut], Subscription(), 1)
