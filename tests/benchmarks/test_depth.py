"""What is compared between depths, and that seeding makes what creating makes."""

from __future__ import annotations

from benchmarks.depth import Calls, ratios
from benchmarks.seed import seed
from engine.adapters.storage import open_store
from engine.core.queries import TaskQuery
from engine.core.task import Lane, Status, Wait


def test_a_ratio_stands_for_the_same_call_and_percentile():
    base = Calls([0.001] * 90 + [0.010] * 10, cpu_s=0.1)
    deep = Calls([0.002] * 90 + [0.012] * 10, cpu_s=0.15)
    figures = list(ratios("9 queued", {"get": deep}, {"get": base}))
    assert [(figure.what, figure.stat, round(figure.value, 6)) for figure in figures] == [
        ("9 queued: get, ratio", "p50", 2.0),
        ("9 queued: get, ratio", "p95", 1.2),
        ("9 queued: get, ratio of CPU", "", 1.5),
    ]
    assert [figure.met for figure in figures] == [None, True, None]


def test_without_answers_there_is_no_ratio():
    assert not list(ratios("9 queued", {"get": Calls()}, {"get": Calls([0.001])}))


def test_tasks_that_are_never_called_are_counted():
    calls = Calls()
    calls.keep_called({"a": 1.0, "b": 2.0}, {"a": 1.5, "b": 2.25}, all_completed=True)
    assert (calls.latencies, calls.unwanted) == ([0.5, 0.25], {})
    calls.keep_called({"c": 3.0, "d": 3.0}, {"a": 1.5, "d": 4.0}, all_completed=False)
    assert calls.latencies == [0.5, 0.25, 1.0]
    assert calls.unwanted == {"never called": 1, "rounds not all Completed": 1}


async def test_a_seeded_database_is_as_if_the_tasks_had_been_created(tmp_path):
    url = f"sqlite:///{tmp_path}/seeded.db"
    ids = await seed(url, "http://127.0.0.1:9/good", range(3))
    ids += await seed(url, "http://127.0.0.1:9/good", range(3, 5))
    async with open_store(url) as store:
        tasks = await store.tasks(TaskQuery(), 10)
        counts = await store.counts()
        events = await store.events(0, 10)
    assert [task.id for task in reversed(tasks)] == ids == sorted(ids)
    assert [task.spec.name for task in reversed(tasks)] == [f"bench-{n}" for n in range(5)]
    found = {(task.status, task.lane, task.wait) for task in tasks}
    assert found == {(Status.QUEUED, Lane.TAKE, Wait.READY)}
    assert counts[Status.QUEUED] == 5
    assert [event.task_id for event in events] == ids
