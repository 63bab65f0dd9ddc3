"""The load process against a server that cheats: whatever is wrong must be found."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import closing, suppress
from time import perf_counter
from urllib.parse import urlsplit

import pytest
import trio

from benchmarks.drive import DriverError, drive, driver_us
from benchmarks.driver.books import Books
from benchmarks.driver.callers import Caller, Callers
from benchmarks.driver.loop import Loop
from benchmarks.driver.plan import Latency, Plan, Readers, Result
from benchmarks.driver.summary import latency, percentile
from benchmarks.driver.wire import called_for, cut, status_of, task_ids
from benchmarks.running import usage_of

from .crooked_stack import CrookedStack, open_crooked_stack


async def load(stack: CrookedStack, **plan) -> Result:
    settings = {"tasks": 40, "connections": 8, "stall_s": 0.5, "final_s": 0.3} | plan
    with trio.fail_after(30):
        return await drive(Plan(url=stack.url, **settings))


def clean(result: Result) -> bool:
    found = (result.lost, result.duplicates, result.unknown, result.unanswered)
    return (found, result.refused, result.stalled) == ((0, 0, 0, 0), {}, None)


@pytest.mark.slow
class TestDriver:
    async def test_an_honest_stack_is_clean(self):
        async with open_crooked_stack() as stack:
            result = await load(stack)
        assert clean(result)
        assert (result.accepted, result.states) == (40, {"Completed": 40})
        assert (stack.creates, stack.asked) == (40, 40)
        assert result.create
        assert result.end_to_end
        assert (result.create.count, result.end_to_end.count) == (40, 40)
        assert sum(result.timeline) == 40
        assert result.rate
        assert driver_us(result) > 0

    async def test_lost_tasks_are_counted_and_end_the_run(self):
        async with open_crooked_stack(lose=frozenset({3, 7})) as stack:
            result = await load(stack)
        assert (result.accepted, result.lost, result.duplicates) == (40, 2, 0)
        assert result.stalled == "nothing moved for 0.5 s"
        assert result.states == {"Completed": 38, "Queued": 2}  # asked for nevertheless

    async def test_creates_that_are_never_answered_are_counted(self):
        async with open_crooked_stack(mute=frozenset({3, 7})) as stack:
            result = await load(stack)
        assert (result.accepted, result.refused, result.unanswered) == (38, {}, 2)
        assert result.stalled == "nothing moved for 0.5 s"
        assert result.states == {"Completed": 38}

    async def test_a_warm_up_that_stalls_is_told(self):
        tricks = {"lose": frozenset({3}), "refuse": {5: 503}, "twice": frozenset({1})}
        async with open_crooked_stack(**tricks) as stack:
            result = await load(stack, warm=10)
        assert (result.accepted, result.unanswered, stack.creates) == (0, 40, 10)
        assert (result.lost, result.duplicates, result.refused) == (1, 1, {"status 503": 1})
        assert result.stalled

    async def test_what_is_refused_in_the_warm_up_counts_too(self):
        async with open_crooked_stack(refuse={0: 429}) as stack:
            result = await load(stack, warm=10)
        assert (result.accepted, result.refused) == (40, {"status 429": 1})
        assert (result.unanswered, result.stalled) == (0, None)

    async def test_duplicates_are_counted_beyond_the_first_call(self):
        async with open_crooked_stack(twice=frozenset({1, 2, 39})) as stack:
            result = await load(stack, ask_connections=1)
        assert (result.lost, result.duplicates, result.unknown) == (0, 3, 0)

    async def test_duplicates_that_come_during_the_questions_count_too(self):
        odd = frozenset({5})
        async with open_crooked_stack(late_again=odd, unfinished=odd) as stack:
            result = await load(stack, final_s=0.6)
        assert result.duplicates == 1

    async def test_duplicates_of_the_warm_up_count_too(self):
        async with open_crooked_stack(late_again=frozenset({0}), lose=frozenset({30})) as stack:
            result = await load(stack, warm=10)
        assert (result.accepted, result.lost) == (40, 1)
        assert (result.duplicates, result.unknown) == (1, 0)

    async def test_callers_that_do_not_wait_are_counted(self):
        async with open_crooked_stack(impatient=frozenset({2})) as stack:
            result = await load(stack, callback_ms=100)
        assert (result.cut_off, result.duplicates, result.lost) == (1, 1, 0)

    async def test_calls_for_tasks_that_nobody_created_are_unknown(self):
        async with open_crooked_stack(invent=2) as stack:
            result = await load(stack)
        assert (result.accepted, result.lost, result.unknown) == (40, 0, 2)

    async def test_refused_creates_are_counted_by_what_came(self):
        tricks = {"refuse": {0: 429, 1: 503, 9: 503}, "hang_up": frozenset({5})}
        async with open_crooked_stack(**tricks) as stack:
            result = await load(stack)
        assert result.refused == {"status 429": 1, "status 503": 2, "cut off": 1}
        assert (result.accepted, result.lost) == (36, 0)
        assert stack.creates == 40  # nothing is sent twice

    async def test_a_refused_batch_counts_all_its_tasks(self):
        async with open_crooked_stack(refuse={1: 500}) as stack:
            result = await load(stack, tasks=25, batch=10, connections=1)
        assert (result.accepted, result.refused) == (15, {"status 500": 10})
        assert result.states == {"Completed": 15}

    async def test_tasks_that_do_not_become_final_are_named(self):
        async with open_crooked_stack(unfinished=frozenset({4})) as stack:
            result = await load(stack)
        assert result.states == {"Completed": 39, "Queued": 1}

    async def test_questions_without_an_answer_count_as_such(self):
        async with open_crooked_stack(state_after_s=60) as stack:
            result = await load(stack, tasks=5)
        assert (result.accepted, result.states) == (5, {"no answer": 5})
        assert result.stalled

    async def test_who_answers_slowly_has_time_to_become_final(self):
        """All are asked for once in 0.4 s, more than ``final_s``; the first ones were not final."""
        tricks = {"state_after_s": 0.1, "complete_after_s": 0.35}
        async with open_crooked_stack(**tricks) as stack:
            result = await load(stack, tasks=4, connections=4, ask_connections=1)
        assert (clean(result), result.states) == (True, {"Completed": 4})
        assert stack.asked > 4

    async def test_a_callback_may_come_before_its_answer(self):
        async with open_crooked_stack(call_first=True) as stack:
            assert clean(await load(stack))

    async def test_chunked_messages_are_understood_both_ways(self):
        async with open_crooked_stack(chunked=True) as stack:
            result = await load(stack, tasks=20, batch=5)
        assert clean(result)
        assert result.states == {"Completed": 20}

    async def test_callbacks_are_held_for_as_long_as_planned(self):
        async with open_crooked_stack() as stack:
            result = await load(stack, callback_ms=150, connections=40)
        assert clean(result)
        assert result.held
        assert result.held.p50 >= 150
        assert 1 < result.peak_in_flight <= 40

    async def test_latency_counts_from_the_schedule(self):
        """One connection, 50 creates a second due, each answered after 100 ms: the last of twenty
        is sent about 1.6 s late, which only a clock that starts when it was due can see."""
        async with open_crooked_stack(answer_after_s=0.1) as stack:
            result = await load(stack, tasks=20, rate=50, connections=1)
        assert clean(result)
        assert result.create
        assert result.behind
        assert result.create.max >= 1500
        assert result.behind.max >= 1400

    async def test_a_schedule_takes_the_connections_that_it_needs(self):
        async with open_crooked_stack(answer_after_s=0.3) as stack:
            result = await load(stack, tasks=40, rate=200, connections=100, ask=0)
        assert clean(result)
        assert 16 < stack.connections <= 41

    async def test_no_more_is_sent_ahead_than_planned(self):
        async with open_crooked_stack(lose=frozenset(range(40))) as stack:
            result = await load(stack, ahead=6, connections=3)
        assert (result.accepted, result.lost, stack.creates) == (6, 6, 6)
        assert (result.unanswered, result.states) == (34, {"Queued": 6})
        assert result.stalled

    async def test_manual_tasks_are_not_waited_for(self):
        async with open_crooked_stack() as stack:
            result = await load(stack, dispatch="manual")
        assert clean(result)
        assert (result.accepted, result.end_to_end, result.states) == (40, None, {})
        assert result.rate

    async def test_readers_ask_while_the_load_runs(self):
        readers = tuple(Readers(what=what, rate=100) for what in ("create", "get", "list"))
        async with open_crooked_stack() as stack:
            result = await load(
                stack, readers=readers, callback_ms=400, readers_in_flight=10, connections=20
            )
        assert clean(result)
        assert [reading.what for reading in result.readings] == ["create", "get", "list"]
        assert all(reading.latency and not reading.refused for reading in result.readings)
        assert result.in_flight
        listed = result.readings[2].latency
        assert listed
        assert stack.listed == listed.count

    async def test_a_sample_may_be_asked_for(self):
        async with open_crooked_stack() as stack:
            result = await load(stack, ask=10)
        assert (result.states, stack.asked) == ({"Completed": 10}, 10)

    async def test_nobody_listening_is_a_result(self):
        async with open_crooked_stack() as stack:
            gone = stack.url
        result = await drive(Plan(url=gone, tasks=3, stall_s=0.5))
        assert result.accepted == 0
        assert result.unanswered == 3
        assert result.stalled
        assert result.stalled.startswith("cannot connect")

    async def test_the_run_ends_at_its_limit(self):
        async with open_crooked_stack(answer_after_s=0.2) as stack:
            result = await load(stack, tasks=1000, connections=1, limit_s=0.7)
        assert result.stalled == "not done after 0.7 s"
        assert result.accepted + result.unanswered == 1000
        assert sum(result.states.values()) == result.accepted

    async def test_a_plan_that_is_none_is_an_error_of_the_driver(self):
        with pytest.raises(DriverError, match="ValueError"):
            await drive(Plan(url="http://127.0.0.1:port", tasks=1))


def test_percentiles_are_measured_values_by_nearest_rank():
    assert latency([n / 1000 for n in range(100, 0, -1)]) == Latency(
        count=100, p50=50.0, p95=95.0, p99=99.0, max=100.0
    )
    assert latency([]) is None
    assert percentile([2.0, 1.0], 51) == 2.0


def test_books_tell_apart_what_happened():
    books = Books()
    books.accept(b"a", 1.0)
    books.call(b"b", 1.5)
    books.answer(b"b", 1.6)
    assert (books.missing, books.lost, books.unknown) == (1, 1, 1)
    books.accept(b"b", 1.2)
    books.call(b"a", 2.0)
    books.answer(b"a", 2.5)
    books.call(b"a", 3.0)
    books.answer(b"a", 3.0)
    assert (books.missing, books.lost, books.unknown) == (0, 0, 0)
    assert books.again == {b"a": 1}
    assert books.times() == [1.6, 2.5]
    assert books.end_to_end() == pytest.approx([0.4, 1.5])


class TestWire:
    ANSWER = b"HTTP/1.1 201 Created\r\nContent-length: 2\r\n\r\nok"

    def test_a_message_is_cut_when_it_is_whole(self):
        for most in range(len(self.ANSWER)):
            assert cut(self.ANSWER[:most]) is None
        found = cut(self.ANSWER + b"HTTP")
        assert found is not None
        assert found[1:] == (b"ok", len(self.ANSWER))
        assert status_of(self.ANSWER, 0) == 201

    def test_chunks_are_joined_when_they_are_whole(self):
        said = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3;x\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
        for most in range(len(said)):
            assert cut(said[:most]) is None
        found = cut(said)
        assert found is not None
        assert found[1:] == (b"abcd", len(said))

    def test_a_message_without_a_length_has_no_body(self):
        assert cut(b"GET / HTTP/1.1\r\n\r\nGET") == (14, b"", 18)

    @pytest.mark.parametrize("said", [b"HTTP/2 200", b"garbage", b"HTTP/1.1 abc"])
    def test_nonsense_is_no_status(self, said):
        with pytest.raises(ValueError):  # noqa: PT011 - any
            status_of(said, 0)

    def test_an_endless_message_is_refused(self):
        with pytest.raises(ValueError, match="endless"):
            cut(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n")

    def test_the_task_of_a_callback_is_in_its_head(self):
        assert called_for(b"POST / HTTP/1.1\r\nWebhook-ID: abc \r\nx: y") == b"abc"
        assert called_for(b"POST / HTTP/1.1\r\nx: y") == b""

    def test_the_tasks_of_a_create_are_as_many_as_asked_for(self):
        assert task_ids(b'{"taskId": "a", "status": "Queued"}', 1) == [b"a"]
        assert task_ids(b'{"tasks":[{"taskId":"a"},{"taskId":"b"}]}', 2) == [b"a", b"b"]
        for body in (b"{}", b"not json", b'{"tasks":[{"taskId":"a"}]}'):
            with pytest.raises(ValueError):  # noqa: PT011 - any
                task_ids(body, 2)


@pytest.mark.slow
async def test_the_usage_of_a_tree_has_its_children():
    code = """
import os, subprocess, sys
subprocess.run([sys.executable, "-c", "while __import__('time').process_time() < 0.3: pass"])
subprocess.run([sys.executable, "-c", "import os; print(os.getpid(), flush=True); input()"])
"""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    async with process.stdin, process.stdout:
        child = int(await process.stdout.receive_some())
        whole, part = usage_of([process.pid]), usage_of([child])
    await process.wait()
    assert whole.rss_mib > part.rss_mib > 0
    assert whole.peak_rss_mib >= whole.rss_mib
    assert whole.cpu_s >= 0.3  # of a child that has ended
    assert usage_of([process.pid]).rss_mib == 0


def connected(callers: Callers) -> socket.socket:
    url = urlsplit(callers.url)
    return socket.create_connection((url.hostname, url.port))


def test_calls_are_cut_out_of_their_connection_and_answered():
    heads: list[bytes] = []
    callers: list[Caller] = []

    def take(caller: Caller, head: bytes) -> None:
        heads.append(head)
        callers.append(caller)

    loop = Loop()
    with closing(Callers(loop, take)) as it, connected(it) as stack:
        body = b"webhook-id: not of the head"
        stack.sendall(b"POST /a HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        stack.sendall(b"POST /b HTTP/1.1\r\nconnection: close\r\n\r\nPOST /c")
        while len(heads) < 2:
            loop.turn(perf_counter() + 1.0)
        assert heads == [
            b"POST /a HTTP/1.1\r\ncontent-length: 27",
            b"POST /b HTTP/1.1\r\nconnection: close",
        ]
        assert callers[1].answer(b"yes")
        assert stack.recv(10) == b"yes"
        assert stack.recv(10) == b"", "who says close is closed after the answer"
        assert not callers[1].answer(b"no")


def test_who_calls_without_end_is_cut_off():
    heads: list[bytes] = []
    loop = Loop()
    it = Callers(loop, lambda _, head: heads.append(head))
    with closing(it), connected(it) as stack:
        stack.sendall(b"POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n")
        stack.settimeout(0.01)
        data = None
        while data is None:
            loop.turn(perf_counter() + 0.1)
            with suppress(TimeoutError, ConnectionResetError):
                data = stack.recv(10)
        assert data == b""
        assert heads == []
