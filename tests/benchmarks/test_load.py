"""The load generator against the callback receiver, and the arithmetic of the figures."""

from __future__ import annotations

import json
import random
import sys
from functools import partial

import pytest
import trio

from benchmarks.load import Answer, Connection, CutOffError, ask_once, closed_loop, request
from benchmarks.report import Figure, latency_figures, machine, percentile, print_table
from benchmarks.stack import StartError, open_process
from benchmarks.tasks import Account, account, batches, fill
from web.receiver import open_receiver


def call(number: int, path: str = "/good"):
    return request("POST", path, {"number": number}, {"webhook-id": f"task-{number}"})


async def serve_script(answers: list[bytes], task_status) -> None:
    """A server that says one prepared answer to each request, whatever it is."""
    scripted = iter(answers)

    async def one(stream: trio.SocketStream) -> None:
        async with stream:
            while await stream.receive_some() and (said := next(scripted, b"")):
                await stream.send_all(said)
                if b"connection: close" in said:
                    return

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, one, listeners)
        task_status.started(f"http://127.0.0.1:{port}")


async def test_every_request_is_sent_once_and_counted_once():
    async with open_receiver() as receiver:
        load = await closed_loop(receiver.url, map(call, range(500)), connections=20)
        assert (len(load.latencies), load.connects, load.unwanted) == (500, 20, {})
        assert receiver.total == 500
        assert set(receiver.counts().values()) == {1}
        assert load.seconds > 0


async def test_every_connection_asks_at_once_and_waits_for_its_answer():
    async with open_receiver() as receiver, trio.open_nursery() as nursery:
        held = (call(number, "/hang") for number in range(40))
        nursery.start_soon(partial(closed_loop, receiver.url, held, connections=20))
        with trio.fail_after(5):
            while receiver.in_flight < 20:  # noqa: ASYNC110 - seen from outside
                await trio.sleep(0.005)
        await trio.sleep(0.02)  # a twenty-first would come now
        assert (receiver.peak_in_flight, receiver.total) == (20, 20)
        nursery.cancel_scope.cancel()


async def test_answers_other_than_the_wanted_are_named():
    async with open_receiver() as receiver:
        paths = ["/good", "/broken", "/drop", "/good", "/status/429"]
        load = await closed_loop(receiver.url, map(call, range(5), paths), connections=1)
    assert len(load.latencies) == 2
    assert load.unwanted.total() == 3
    assert load.unwanted["status 500"] == load.unwanted["status 429"] == 1
    assert load.connects == 2  # the dropped one was opened again


async def test_on_answer_sees_the_wanted_answers():
    seen: list[tuple[Answer, float]] = []
    async with open_receiver() as receiver:
        requests = map(call, range(3), ["/good", "/broken", "/good"])
        await closed_loop(
            receiver.url, requests, connections=1, on_answer=lambda *a: seen.append(a)
        )
    assert [answer.json() for answer, _began in seen] == [{"ok": True}] * 2
    assert seen[0][1] < seen[1][1]


async def test_a_connection_the_server_closes_is_opened_again(nursery):
    kept = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    last = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
    url = await nursery.start(serve_script, [kept, last] * 3)
    load = await closed_loop(url, map(call, range(6)), connections=1)
    assert (len(load.latencies), load.connects, load.unwanted) == (6, 3, {})
    nursery.cancel_scope.cancel()


async def test_chunked_and_bodiless_answers_are_understood(nursery):
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\ntrailer: t\r\n\r\n"
    )
    empty = b"HTTP/1.1 204 No Content\r\n\r\n"
    plain = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"
    url = await nursery.start(serve_script, [chunked, empty, plain])
    with Connection(url) as connection:
        answers = [await connection.ask(call(number)) for number in range(3)]
        assert connection.connects == 1
    assert [(answer.status, answer.body) for answer in answers] == [
        (200, b"abc0123456789"), (204, b""), (201, b"ok"),
    ]  # fmt: skip
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "said",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ncontent-length: ten\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"x" * 70_000,
    ],
)
async def test_a_broken_answer_is_a_cut_off_and_the_next_one_is_fine(nursery, said):
    good = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    url = await nursery.start(serve_script, [said, good])
    with Connection(url) as connection:
        with pytest.raises(CutOffError):
            await connection.ask(call(1))
        assert (await connection.ask(call(2))).body == b"ok"
    nursery.cancel_scope.cancel()


async def test_nobody_listening_is_counted_as_cut_off():
    async with open_receiver() as receiver:
        url = receiver.url
    load = await closed_loop(url, map(call, range(3)), connections=2)
    assert (load.latencies, load.unwanted.total()) == ([], 3)


def test_percentiles_are_measured_values_by_nearest_rank():
    values = [float(n) for n in range(1, 101)]
    random.Random(7).shuffle(values)
    assert [percentile(values, p) for p in (0, 1, 50, 95, 99, 100)] == [1, 1, 50, 95, 99, 100]
    assert percentile([3.0], 99) == 3.0
    assert percentile([1.0, 2.0], 50) == 1.0
    assert percentile([1.0, 2.0], 51) == 2.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_too_little_measured_prints_no_figure():
    stats = {
        n: [f.stat for f in latency_figures("q", "w", [0.1] * n)] for n in (0, 1, 2, 19, 20, 99)
    }
    assert stats == {0: [], 1: [], 2: ["p50"], 19: ["p50"], 20: ["p50", "p95"], 99: ["p50", "p95"]}


def test_requests_without_a_wanted_answer_stand_beside_the_latency():
    *latencies, others = latency_figures(
        "q", "get", [0.001] * 100, {"status 500": 2, "status 404": 1}
    )
    assert [figure.stat for figure in latencies] == ["p50", "p95", "p99"]
    assert (others.value, others.met, others.note) == (3, False, "2 × status 500, 1 × status 404")


def test_a_limit_is_kept_or_not():
    p50, p95, p99 = latency_figures("q", "get", [0.002] * 90 + [0.3] * 10, p95_limit_ms=200)
    assert (p50.value, p50.met) == (2.0, None)
    assert (p95.value, p95.met) == (300.0, False)
    assert p99.met is None
    assert Figure("q", "w", 100, limit=100, better="higher").met
    assert not Figure("q", "w", 99, limit=100, better="higher").met


def test_losses_duplicates_and_strangers_are_told_apart():
    found = account(["a", "b", "c"], {"a": 1, "b": 3, "z": 1}, completed=1)
    assert found == Account(accepted=3, lost=1, unfinished=2, duplicates=2, strangers=1)
    assert [figure.met for figure in found.figures("q", "w")] == [False, False, False]
    clean = account(["a"], {"a": 1}, completed=1)
    assert [figure.met for figure in clean.figures("q", "w")] == [True, True, True]


def test_the_table_is_readable_in_a_pipe(capsys):
    latencies = latency_figures("first", "create", [0.002] * 90 + [0.3] * 10, p95_limit_ms=200)
    print_table([*latencies, Figure("second", "tasks/s", 12345.6, "/s")])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    [row] = [line for line in shown.splitlines() if "create" in line]
    for cell in ("2 ms", "300 ms", "p95 ≤ 200 ms", "no"):
        assert cell in row
    assert "12,346 /s" in shown


def test_the_machine_is_described_in_json(tmp_path):
    facts = machine(tmp_path)
    assert facts["cores"]
    assert json.loads(json.dumps(facts)) == facts


async def test_a_full_server_is_asked_again_after_a_while(nursery):
    full = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 0.01\r\ncontent-length: 0\r\n\r\n"
    taken = b'{"tasks":[{"taskId":"a"},{"taskId":"b"}]}'
    created = b"HTTP/1.1 201 Created\r\ncontent-length: %d\r\n\r\n%b" % (len(taken), taken)
    url = await nursery.start(serve_script, [full, full, created])
    tasks = batches("http://127.0.0.1:1/good", 2, 1000, "manual")
    assert await fill(url, tasks, connections=1) == ["a", "b"]
    nursery.cancel_scope.cancel()


async def test_a_refused_batch_says_why(nursery):
    bad = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 4\r\n\r\nname"
    url = await nursery.start(serve_script, [bad])
    with pytest.RaisesGroup(pytest.RaisesExc(CutOffError, match="status 400: name")):
        await fill(url, batches("http://127.0.0.1:1/", 1, 1, "auto"), connections=1)
    nursery.cancel_scope.cancel()


def test_batches_hold_every_task_once():
    raw = [json.loads(asked.body)["tasks"] for asked in batches("http://h/", 250, 100, "auto")]
    assert [len(tasks) for tasks in raw] == [100, 100, 50]
    assert len({task["name"] for tasks in raw for task in tasks}) == 250


@pytest.mark.slow
async def test_a_process_is_measured_from_outside_and_stopped(tmp_path):
    async with open_process("receiver", ["-m", "web.receiver"], tmp_path) as running:
        assert (await ask_once(running.url, call(1))).status == 200
        usage = running.usage()
        if sys.platform == "linux":
            assert usage.cpu_s
            assert usage.rss_mib
            assert usage.peak_rss_mib
            assert usage.peak_rss_mib >= usage.rss_mib > 1
    assert (await closed_loop(running.url, [call(2)], connections=1)).unwanted.total() == 1


async def test_a_process_that_does_not_come_up_is_explained(tmp_path):
    code = "raise SystemExit('no such database')"
    with pytest.raises(StartError, match=r"exit 1.*\n.*no such database"):
        async with open_process("server", ["-c", code], tmp_path):
            raise AssertionError


async def test_a_process_that_ends_by_itself_is_reported(tmp_path, capsys):
    code = """
import pathlib, sys, time
print("on http://127.0.0.1:1", flush=True)
while not pathlib.Path("go").exists():
    time.sleep(0.005)
sys.exit("out of luck")
"""
    said = trio.Path(tmp_path / "server.err")
    # -S: without coverage, which would be saving when the SIGTERM of the end arrives.
    async with open_process("server", ["-S", "-c", code], tmp_path) as running:
        assert running.url == "http://127.0.0.1:1"
        await trio.Path(tmp_path / "go").touch()
        with trio.fail_after(5):
            while "out of luck" not in await said.read_text():  # noqa: ASYNC110 - another process
                await trio.sleep(0.01)
    said_by_us = capsys.readouterr().err
    assert "the server left with" in said_by_us
    assert "out of luck" in said_by_us
