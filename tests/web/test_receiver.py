"""The callback receiver over real loopback sockets: what it answers, and what it counts."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from web.receiver import CallLog, Receiver, Request, open_receiver

CALL = {"webhook-id": "task-1", "content-type": "application/json"}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with open_receiver() as opened:
        yield opened


async def call(receiver: Receiver, path: str, attempt: int = 1, task: str = "task-1"):
    headers = CALL | {"webhook-id": task, "x-task-attempt": str(attempt)}
    async with httpx.AsyncClient() as client:
        return await client.post(receiver.url + path, content=b'{"taskId":"1"}', headers=headers)


async def connect(receiver: Receiver) -> trio.SocketStream:
    parts = urlsplit(receiver.url)
    return await trio.open_tcp_stream(str(parts.hostname), int(parts.port or 0))


async def talk(receiver: Receiver, raw: bytes) -> bytes:
    async with await connect(receiver) as stream:
        await stream.send_all(raw)
        return b"".join([data async for data in stream])


async def in_flight(receiver: Receiver, count: int) -> None:
    with trio.fail_after(5):
        while receiver.in_flight != count:  # noqa: ASYNC110 - seen from outside, as its users do
            await trio.sleep(0.005)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/good", 200, b'{"ok":true}'),
        ("/broken", 500, b'{"error":"broken"}'),
        ("/permanent", 422, b'{"error":"never"}'),
        ("/redirect", 302, b"{}"),
        ("/big?bytes=200000", 200, b"x" * 200_000),
        ("/status/418", 418, b"{}"),
        ("/status/204", 204, b""),
        ("/status/199", 404, b'{"error":"no such path"}'),
        ("/nowhere", 404, b'{"error":"no such path"}'),
        ("/slow?ms=-1", 400, b"{}"),
        ("/slow?ms=soon", 400, b"{}"),
    ],
)
async def test_the_path_chooses_the_answer(receiver, path, status, body):
    answer = await call(receiver, path)
    assert (answer.status_code, answer.content) == (status, body)


async def test_flaky_answers_once_enough_attempts_of_the_task_have_failed(receiver):
    statuses = [(await call(receiver, "/flaky?fails=2", n)).status_code for n in (1, 2, 3)]
    assert statuses == [503, 503, 200]
    assert (await call(receiver, "/flaky?fails=2", 1, task="task-2")).status_code == 503
    assert (await call(receiver, "/flaky?status=404", 1, task="task-3")).status_code == 404
    assert (await call(receiver, "/flaky?status=1", 1, task="task-4")).status_code == 200


async def test_flaky_counts_itself_when_the_caller_names_no_attempt(receiver):
    async with httpx.AsyncClient() as client:
        answers = [
            await client.post(receiver.url + "/flaky?fails=1", headers={"webhook-id": "other"})
            for _ in range(3)
        ]
    assert [answer.status_code for answer in answers] == [503, 200, 200]
    assert [seen.attempt for seen in receiver.calls("other")] == [1, 2, 3]


async def test_retry_after_asks_for_patience_on_the_first_attempt_only(receiver):
    first = await call(receiver, "/retry-after?seconds=3", 1)
    assert (first.status_code, first.headers["retry-after"]) == (429, "3")
    assert (await call(receiver, "/retry-after?seconds=3", 2)).status_code == 200


async def test_slow_waits(receiver):
    await call(receiver, "/slow?ms=50")
    [seen] = receiver.calls("task-1")
    assert seen.ended is not None
    assert seen.ended - seen.started >= 0.05


async def test_drop_closes_without_an_answer(receiver):
    with pytest.raises(httpx.RemoteProtocolError):
        await call(receiver, "/drop")
    assert [seen.status for seen in receiver.calls("task-1")] == [0]


@pytest.mark.parametrize("path", ["/hang", "/slow?ms=60000"])
async def test_a_call_ends_without_an_answer_when_its_caller_leaves(receiver, path):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, receiver, path)
        await in_flight(receiver, 1)
        nursery.cancel_scope.cancel()
    await in_flight(receiver, 0)
    [seen] = receiver.calls("task-1")
    assert (seen.status, seen.ended is not None) == (0, True)


async def test_a_call_in_flight_is_already_known(receiver):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, receiver, "/hang")
        await in_flight(receiver, 1)
        [seen] = receiver.calls("task-1")
        assert (seen.path, seen.ended) == ("/hang", None)
        nursery.cancel_scope.cancel()


async def test_one_hundred_slow_calls_are_in_flight_at_once(receiver):
    raw = b"POST /slow?ms=60000 HTTP/1.1\r\nwebhook-id: %d\r\n\r\n"
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(talk, receiver, raw % number)
        await in_flight(receiver, 100)
        nursery.cancel_scope.cancel()
    await in_flight(receiver, 0)
    assert (receiver.peak_in_flight, receiver.total) == (100, 100)
    receiver.reset()
    assert (receiver.peak_in_flight, receiver.total) == (0, 0)


async def test_calls_that_follow_each_other_are_never_counted_as_concurrent(receiver):
    async with httpx.AsyncClient() as client:
        for _ in range(50):
            await client.post(receiver.url + "/good", headers=CALL)
    assert (receiver.peak_in_flight, receiver.total) == (1, 50)


async def test_a_call_is_over_before_its_answer_can_reach_the_caller(receiver):
    """Else a caller's next call, on another connection, could be counted beside this one."""
    seen: list[int] = []

    class Watched:
        script = iter([b"POST /good HTTP/1.1\r\n\r\n", b""])

        async def receive_some(self) -> bytes:
            await trio.lowlevel.checkpoint()
            return next(self.script)

        async def send_all(self, _data: bytes) -> None:
            seen.append(receiver.in_flight)
            await trio.lowlevel.checkpoint()

        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            pass

    await receiver.serve(Watched())
    assert seen == [0]


async def test_a_connection_is_kept_and_pipelined_calls_are_answered_in_order(receiver):
    one = b"POST /slow?ms=5 HTTP/1.1\r\nwebhook-id: a\r\ncontent-length: 2\r\n\r\n{}"
    two = b"POST /broken HTTP/1.1\r\nwebhook-id: a\r\nconnection: close\r\n\r\n"
    said = await talk(receiver, one + two)
    assert said.index(b"HTTP/1.1 200 OK") < said.index(b"HTTP/1.1 500 ")
    assert [seen.path for seen in receiver.calls("a")] == ["/slow", "/broken"]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GARBAGE\r\n\r\n", b"400"),
        (b"POST good HTTP/1.1\r\n\r\n", b"400"),
        (b"POST /good HTTP/3\r\n\r\n", b"400"),
        (b"POST /good HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
        (b"POST /good HTTP/1.1\r\n: nameless\r\n\r\n", b"400"),
        (b"POST /good HTTP/1.1\r\ncontent-length: -1\r\n\r\n", b"400"),
        (b"POST /good HTTP/1.1\r\ncontent-length: 1_0\r\n\r\n", b"400"),
        (b"POST /good HTTP/1.1\r\ncontent-length: 99999999999999\r\n\r\n", b"413"),
        (b"POST /good HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", b"411"),
        (b"POST /good HTTP/1.1\r\nlong: " + b"x" * 70_000, b"431"),
    ],
)
async def test_bad_bytes_are_refused_and_hurt_nobody_else(receiver, raw, status):
    said = await talk(receiver, raw)
    assert said.startswith(b"HTTP/1.1 " + status)
    assert (receiver.total, receiver.in_flight) == (0, 0)
    assert (await call(receiver, "/good")).status_code == 200


async def test_a_caller_that_leaves_in_the_middle_of_its_request_is_no_call(receiver):
    async with await connect(receiver) as stream:
        await stream.send_all(b"POST /good HTTP/1.1\r\ncontent-length: 10\r\n\r\nhalf")
    assert (await call(receiver, "/good")).status_code == 200
    assert receiver.total == 1


async def test_a_caller_that_leaves_in_the_middle_of_a_big_answer_ends_the_call(receiver):
    async with await connect(receiver) as stream:
        await stream.send_all(b"GET /big?bytes=100000000 HTTP/1.1\r\nwebhook-id: b\r\n\r\n")
        await stream.receive_some(1)
    await in_flight(receiver, 0)
    assert [seen.status for seen in receiver.calls("b")] == [0]


async def test_requests_are_kept_when_asked_for():
    async with open_receiver(keep_requests=True) as receiver:
        await call(receiver, "/good", attempt=2)
        [seen] = receiver.calls("task-1")
        assert (seen.attempt, seen.body, seen.body_bytes) == (2, b'{"taskId":"1"}', 14)
        assert seen.headers["content-type"] == "application/json"


async def test_only_the_last_calls_are_remembered():
    async with open_receiver(calls_max=3) as receiver:
        for task in ("a", "b", "a", "a", "c"):
            await call(receiver, "/good", task=task)
        assert receiver.total == 5
        assert receiver.counts() == {"a": 2, "c": 1}
        assert receiver.calls("b") == []
        assert len(receiver.calls("a")) == 2


def test_only_success_counts_as_answered():
    log, asked = CallLog(10), Request("POST", "/good", {})
    for task, status, now in (("a", 503, 1.0), ("a", 200, 2.0), ("a", 200, 3.0), ("b", 0, 4.0)):
        log.end(log.start(task, 1, "/good", asked, 0.0), status, now)
    assert log.answered() == {"a": 2.0}


def test_a_forgotten_task_begins_again():
    log, asked = CallLog(1), Request("POST", "/good", {})
    log.start("a", 7, "/good", asked, 1.0)
    log.start("b", 3, "/good", asked, 2.0)
    assert (log.last_attempt("a"), log.last_attempt("b")) == (0, 3)


def test_a_call_forgotten_while_in_flight_ends_without_harm():
    log, asked = CallLog(1), Request("POST", "/good", {})
    first = log.start("a", 1, "/good", asked, 1.0)
    second = log.start("b", 1, "/good", asked, 2.0)
    assert log.end(first, 200, 3.0) is None
    assert log.end(second, 200, 4.0) == 2.0
    assert [(seen.task_id, seen.ended) for seen in log.all_calls()] == [("b", 4.0)]


async def test_reset_during_a_call_forgets_it_and_keeps_it_in_flight(receiver):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, receiver, "/hang")
        await in_flight(receiver, 1)
        receiver.reset()
        assert (receiver.total, receiver.in_flight, receiver.peak_in_flight) == (0, 1, 1)
        nursery.cancel_scope.cancel()
    await in_flight(receiver, 0)
    assert receiver.busy_s == 0.0


async def test_it_tells_over_http_what_it_saw_and_forgets_it_on_request(receiver):
    async with httpx.AsyncClient(base_url=receiver.url) as client:
        before = (await client.get("/_calls?counts=0")).json()
        assert (before["total"], before["firstStarted"], before["lastEnded"]) == (0, None, None)
        for task in ("task-1", "task-2", "task-2"):
            await client.post("/good", headers={"webhook-id": task})
        seen = (await client.get("/_calls")).json()
        assert (seen["total"], seen["counts"]) == (3, {"task-1": 1, "task-2": 2})
        assert (seen["peakInFlight"], seen["inFlight"]) == (1, 0)
        assert seen["lastEnded"] >= seen["firstStarted"]
        assert "counts" not in (await client.get("/_calls?counts=0")).json()
        assert set((await client.get("/_answered")).json()) == {"task-1", "task-2"}
        assert (await client.post("/_reset")).status_code == 200
        assert (await client.get("/_calls")).json()["counts"] == {}
        assert (await client.get("/_nothing")).status_code == 404
    assert receiver.total == 0  # asking is not a call


@pytest.mark.slow
async def test_it_runs_as_a_process_and_tells_what_it_saw():
    command = [sys.executable, "-m", "web.receiver", "--port", "0"]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    async with process.stdout:
        with trio.fail_after(10):
            url = (await process.stdout.receive_some()).decode().strip()
        async with httpx.AsyncClient(base_url=url) as client:
            await client.post("/good", headers=CALL)
            assert (await client.get("/_calls")).json()["counts"] == {"task-1": 1}
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(5):
            assert await process.wait() == 0
