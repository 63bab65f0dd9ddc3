"""The comparison, with small stacks of our own in the place of the peers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from benchmarks.compare import Contest, Terms, affordable, in_turn
from benchmarks.comparison import Comparison, print_comparison, table
from benchmarks.driver.plan import Plan, Result
from benchmarks.interrupted import EXIT_INTERRUPTED
from benchmarks.peers import NotInstallable
from benchmarks.running import RunningStack, trees
from benchmarks.stack import ROOT, StartError
from benchmarks.work import open_loop, single, workloads

from .crooked_stack import open_crooked_stack

RESULT = Result(
    accepted=1000, refused={}, unanswered=0, lost=0, duplicates=0, unknown=0, cut_off=0,
    states={"Completed": 1000},
    seconds=2.0, rate=500.0, steady_rate=510.0, create_rate=600.0, create=None, end_to_end=None,
    peak_in_flight=1, in_flight=None, held=None, behind=None, timeline=[500, 500], readings=[],
    stalled=None, driver_cpu_s=0.05, usage=None,
)  # fmt: skip


@attrs.define
class Crooked:
    """A stack that does what its tricks say."""

    name: str
    tricks: dict[str, object] = attrs.field(factory=dict)
    opened: int = 0

    def facts(self):
        return {"versions": "1", "durability": "none at all"}

    def prepare(self, say) -> None:
        say("nothing to do")

    @asynccontextmanager
    async def open(self, directory):
        self.opened += 1
        async with open_crooked_stack(**self.tricks) as stack:
            yield RunningStack(stack.url, ())


class Missing(Crooked):
    def prepare(self, say) -> None:
        raise NotInstallable("install it first")


class Lame(Crooked):
    @asynccontextmanager
    async def open(self, directory):
        if directory:
            raise StartError("it did not come up")
        yield RunningStack("", ())


def work(tasks: int, **plan):
    asked = single(tasks)
    return attrs.evolve(asked, plan=Plan(url="", tasks=0, connections=4, stall_s=0.5, **plan))


@pytest.mark.slow
async def test_what_cannot_be_measured_is_named_and_the_others_go_on(tmp_path, capsys):
    entrants = {
        "ours": Crooked("Ours"),
        "missing": Missing("Missing"),
        "lame": Lame("Lame"),
        "theirs": Crooked("Theirs", {"answer_after_s": 0.01, "twice": frozenset({25})}),
    }
    comparison = Comparison("ours")
    terms = Terms(repeats=2, quick=True, directory=tmp_path)
    with trio.fail_after(60):
        await Contest(terms, entrants, comparison).run([work(20)])
    assert {name: failure.reason for name, failure in comparison.failed.items()} == {
        "missing": "install it first",
        "lame": "it did not come up",
    }
    assert (entrants["ours"].opened, entrants["theirs"].opened) == (3, 3)  # a probe, two repeats
    assert comparison.ours_clean
    ratio = comparison.ratio("single", "theirs")
    assert ratio
    told = json.loads(json.dumps(comparison.as_json()))
    [found] = told["workloads"]
    assert list(found["stacks"]) == ["ours", "theirs"]
    assert found["stacks"]["theirs"]["duplicates"] == 2  # one in each repeat
    assert found["stacks"]["theirs"]["ratio"] == ratio
    assert found["stacks"]["ours"]["low"] <= found["stacks"]["ours"]["median"]
    assert len(found["stacks"]["ours"]["runs"]) == 2
    capsys.readouterr()
    print_comparison(comparison)
    shown = capsys.readouterr().out
    assert "not measured: Missing: install it first" in shown
    [row] = [line for line in shown.splitlines() if line.strip().startswith("Theirs")]
    for cell in ("/s", f"{ratio:.2f}", "20 x 2", "none at all"):
        assert cell in row


def test_a_ratio_says_how_many_times_better_ours_is():
    comparison = Comparison("ours")
    for name, rate in (("ours", 600.0), ("theirs", 300.0)):
        comparison.add(single(10), name, 10, attrs.evolve(RESULT, rate=rate))
    assert comparison.ratio("single", "theirs") == 2.0
    assert comparison.ratio("single", "ours") == 1.0


def test_of_latencies_the_lower_is_better():
    comparison, asked = Comparison("ours"), attrs.evolve(open_loop(300, 1), figure=lambda r: r.rate)
    for name, milliseconds in (("ours", 10.0), ("theirs", 40.0)):
        comparison.add(asked, name, 10, attrs.evolve(RESULT, rate=milliseconds))
    assert comparison.ratio("open-loop", "theirs") == 4.0


def test_without_a_figure_there_is_no_ratio():
    comparison = Comparison("ours")
    comparison.add(single(10), "ours", 10, RESULT)
    comparison.add(single(10), "theirs", 10, attrs.evolve(RESULT, rate=None))
    assert comparison.ratio("single", "theirs") is None
    assert comparison.ratio("single", "absent") is None


def test_ours_is_clean_only_if_nothing_went_wrong():
    wrong = (
        attrs.evolve(RESULT, lost=1),
        attrs.evolve(RESULT, duplicates=1),
        attrs.evolve(RESULT, refused={"status 503": 1}),
        attrs.evolve(RESULT, states={"Completed": 9, "Failed": 1}),
        attrs.evolve(RESULT, unanswered=1),
        attrs.evolve(RESULT, stalled="nothing moved"),
    )
    for result in (RESULT, *wrong):
        comparison = Comparison("ours")
        comparison.add(single(10), "ours", 10, RESULT)
        comparison.add(single(10), "ours", 10, result)
        assert comparison.ours_clean == (result is RESULT)


def test_the_table_has_a_sum_of_what_else_went_wrong():
    comparison = Comparison("ours")
    comparison.facts["ours"] = {"name": "Ours", "durability": "all"}
    result = attrs.evolve(
        RESULT, unknown=1, unanswered=20, refused={"cut off": 300}, stalled="it stood",
        states={"Completed": 1, "no answer": 4000},
    )  # fmt: skip
    comparison.add(single(10), "ours", 10, result)
    other = next(column for column in table(comparison).columns if column.header == "other")
    assert list(other.cells)[-1] == "4,322"


def test_every_repeat_has_another_order_of_the_same_stacks():
    orders = [in_turn(["a", "b", "c"], repeat) for repeat in range(3)]
    assert orders == [["a", "b", "c"], ["a", "c", "b"], ["c", "a", "b"]]
    assert in_turn([], 1) == []


def test_only_a_slow_stack_gets_fewer_tasks():
    asked = single(10_000)
    assert affordable(asked, attrs.evolve(RESULT, rate=500.0)) == 10_000
    assert affordable(asked, attrs.evolve(RESULT, rate=100.0)) == 800
    assert affordable(asked, attrs.evolve(RESULT, rate=1.0)) == 500
    assert affordable(asked, attrs.evolve(RESULT, rate=None)) == 10_000
    assert affordable(open_loop(300, 8), attrs.evolve(RESULT, rate=10.0)) == 2400


def test_every_workload_has_a_name_of_its_own():
    for quick in (True, False):
        names = [each.name for each in workloads(quick=quick)]
        assert names == ["single", "batches", "callbacks-200", "callbacks-50", "open-loop"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_run_leaves_no_process_behind(tmp_path, how):
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "benchmarks.compare", "--stack", "ringback", "--only", "open-loop",
         "--directory", str(tmp_path)],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with trio.fail_after(60):
        while len(below := trees([process.pid]) - {process.pid}) < 2:  # noqa: ASYNC110
            await trio.sleep(0.02)  # the server and the driver are not there yet
        process.send_signal(how)
        assert await process.wait() == EXIT_INTERRUPTED
    with trio.fail_after(10):  # one that it had just started ends by itself, and is then buried
        while any([await trio.Path(f"/proc/{pid}").exists() for pid in below]):  # noqa: ASYNC110
            await trio.sleep(0.05)
    assert list(tmp_path.iterdir()) == []
