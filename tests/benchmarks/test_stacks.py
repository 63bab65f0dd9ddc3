"""Sampled stacks: whose layer each is, whatever library it ends in."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from pathlib import Path
from threading import Thread

import pytest

from benchmarks import profiled_serve, stacks
from benchmarks.profiled_serve import Clocks, Sampler, Totals, read_totals, start_thread_timer
from benchmarks.stacks import COLLECTOR, LOOP, THREADS, by_layer, fold, frame_name, hottest, unfold

UNROLLED = "trio/_core/_run.py:unrolled_run"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"{stacks.ROOT}/engine/core/task.py", "engine/core/task.py:f"),
        ("/x/.venv/lib/python3.11/site-packages/h11/_events.py", "h11/_events.py:f"),
        ("/usr/lib/python3.13/json/decoder.py", "python/json/decoder.py:f"),
        ("<attrs generated methods engine.core.task.Task>", "engine/core/task.py:f"),
        ("<frozen abc>", "<frozen_abc>:f"),
    ],
)
def test_a_frame_is_named_by_its_place_in_the_project_or_package(path, name):
    assert frame_name(path, "f") == name


@pytest.mark.parametrize(
    ("layer", "frames"),
    [
        (stacks.SERVER, ("web/connection.py:Connection._read", "trio/_socket.py:recv")),
        (stacks.SERVER, ("web/connection.py:Connection._read", "h11/_connection.py:next_event")),
        (stacks.FRAMEWORK, ("web/connection.py:Connection.run", "quart/app.py:Quart.handle")),
        (stacks.ROUTE, ("quart/app.py:Quart.handle", "web/routes/tasks.py:create")),
        (stacks.ROUTE, ("web/strict_json.py:loads", "python/json/decoder.py:decode")),
        (stacks.HOPS, ("web/routes/tasks.py:create", "engine/actors/mailbox.py:Inbox.ask")),
        (stacks.HOPS, ("engine/actors/mailbox.py:Reply.wait", "trio/_channel.py:receive")),
        (stacks.CORE, ("web/routes/tasks.py:create", "engine/core/task.py:TaskSpec.check")),
        (stacks.STORE, ("engine/adapters/storage/sql.py:rows", "sqlalchemy/engine/base.py:f")),
        (stacks.TRANSPORT, ("engine/actors/executor.py:run", "engine/adapters/http/wire.py:send")),
        (stacks.SCHEDULER, ("trio/_core/_run.py:reschedule",)),
        (stacks.GARBAGE, ("web/routes/tasks.py:create", COLLECTOR)),
    ],
)
def test_libraries_work_for_the_layer_that_called_them(layer, frames):
    assert stacks.layer_of((LOOP, UNROLLED, *frames)) == layer


def test_what_was_measured_on_the_stores_threads_says_its_layer():
    assert stacks.layer_of((THREADS, stacks.SQLITE)) == stacks.SQLITE


def test_what_is_in_no_layer_is_other():
    assert stacks.layer_of(("python/runpy.py:_run_code",)) == stacks.OTHER


def test_every_layer_is_shown():
    assert {*stacks.LAYERS.values(), stacks.SQLITE, stacks.OTHER} == {*stacks.ALL_LAYERS}


def test_layers_and_places_are_counted():
    met = Counter(
        {
            (LOOP, "web/a.py:f", "python/b.py:g"): 3,
            (LOOP, "web/a.py:f"): 2,
            (LOOP, UNROLLED): 1,
        }
    )
    assert by_layer(met) == {stacks.ROUTE: 5, stacks.SCHEDULER: 1}
    assert hottest(met, stacks.ROUTE, 9) == [("python/b.py:g <- web/a.py:f", 3), ("web/a.py:f", 2)]
    assert hottest(met, stacks.ROUTE, 1) == [("python/b.py:g <- web/a.py:f", 3)]


def test_folded_stacks_are_read_as_they_were_written():
    met = Counter({("a", "b"): 2, ("a",): 1})
    assert unfold(fold(met).splitlines(keepends=True)) == met
    assert unfold(["a;b 1\n", "a;b 1\n", "a 1\n", "cut of"]) == met


def test_cpu_counts_for_the_layer_it_was_used_in_and_not_for_its_callers(tmp_path):
    used = 0.0
    clocks = Clocks(tmp_path / profiled_serve.TOTALS, lambda: used)

    def use(seconds: float) -> None:
        nonlocal used
        used += seconds

    class Records:
        def load(self) -> None:
            use(40.0)

    def work(records: Records) -> str:
        use(2.0)
        records.load()
        clocks.collector("start", {})
        use(1.0)
        clocks.collector("stop", {})
        return "done"

    def transact() -> None:
        assert clocks.transaction(work)(Records()) == "done"

    thread = Thread(target=transact)
    thread.start()
    thread.join()
    assert read_totals(tmp_path) == Totals(
        core_s=2.0, sqlite_s=0.0, garbage_s=1.0, collector_s=1.0, collections=1, transactions=1
    )


def test_only_garbage_collection_is_timed_on_the_main_thread(tmp_path):
    used = iter(range(100))
    clocks = Clocks(tmp_path / profiled_serve.TOTALS, lambda: float(next(used)))
    clocks.collector("start", {})
    clocks.collector("stop", {})
    clocks.show()
    assert read_totals(tmp_path) == Totals(0.0, 0.0, 0.0, 1.0, 1, 0)


def test_totals_are_subtracted_and_added_member_by_member():
    more, less = Totals(3.0, 2.0, 1.0, 4.0, 9, 8), Totals(1.0, 1.0, 1.0, 2.0, 1, 1)
    assert more - less == Totals(2.0, 1.0, 0.0, 2.0, 8, 7)
    assert more - less + less == more


@pytest.mark.skipif(sys.platform != "linux", reason="timers of threads are Linux's")
def test_the_main_thread_is_sampled_by_its_own_cpu(tmp_path):
    path = tmp_path / profiled_serve.SAMPLES
    before = signal.signal(signal.SIGPROF, Sampler(path))
    stop = start_thread_timer(signal.SIGPROF, profiled_serve.INTERVAL_NS)
    try:
        wait_busily_for(path)
    finally:
        stop()
        signal.signal(signal.SIGPROF, before)
    with path.open() as lines:
        met = unfold(lines)
    assert any("wait_busily_for" in frame for stack in met for frame in stack)


def wait_busily_for(path: Path) -> None:
    while not path.stat().st_size:
        pass
