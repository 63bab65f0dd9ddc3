"""What `make bench` asks: every question has an answer, and figures say what the driver saw."""

from __future__ import annotations

import attrs
import pytest
import trio

from benchmarks import create_cost
from benchmarks.__main__ import MORE, QUESTIONS, question
from benchmarks.drive import drive
from benchmarks.driver.plan import Latency, Plan, Result
from benchmarks.observed import checks, costs, latency_row
from benchmarks.running import Usage
from benchmarks.stack import open_process, open_ringback
from benchmarks.throughput import figures
from benchmarks.work import callbacks, single

from .test_compare import RESULT


@pytest.mark.parametrize("name", [*QUESTIONS, *MORE])
def test_every_question_can_be_asked(name):
    assert callable(question(name))


def test_what_must_be_none_is_told_even_if_it_is_none():
    assert [figure.met for figure in checks("q", [RESULT, RESULT])] == [True, True, True]
    assert checks("q", [RESULT, RESULT])[0].note == "2,000 accepted"


@pytest.mark.parametrize(
    ("wrong", "kept", "note"),
    [
        ({"lost": 2}, [False, True, True], "2,000 asked for"),
        ({"stalled": "nothing moved"}, [True, True, False], "nothing moved"),
        ({"unanswered": 7}, [True, True, False], "2,000 asked for"),
        ({"duplicates": 1}, [True, False, True], "2,000 asked for"),
        ({"unknown": 1}, [True, True, False], "2,000 asked for"),
        ({"refused": {"status 503": 3}}, [True, True, False], "status 503"),
        ({"states": {"Completed": 9, "Failed": 1}}, [True, True, False], "1,010 asked for"),
    ],
)
def test_what_went_wrong_is_told(wrong, kept, note):
    found = checks("q", [RESULT, attrs.evolve(RESULT, **wrong)])
    assert [figure.met for figure in found] == kept
    assert note in found[2].note


def test_a_limit_of_latency_counts_for_p95():
    measured = Latency(count=100, p50=1.0, p95=11.0, p99=12.0, max=13.0)
    found = latency_row("q", "create", measured, p95_limit_ms=10.0)
    assert [(figure.stat, figure.value, figure.met) for figure in found] == [
        ("p50", 1.0, None), ("p95", 11.0, False), ("p99", 12.0, None),
    ]  # fmt: skip
    assert latency_row("q", "create", None) == []


def test_a_percentile_is_told_only_if_enough_was_measured():
    measured = Latency(count=99, p50=1.0, p95=11.0, p99=12.0, max=13.0)
    assert [figure.stat for figure in latency_row("q", "create", measured)] == ["p50", "p95"]


def test_costs_are_told_for_each_task():
    used = attrs.evolve(RESULT, usage=Usage(cpu_s=2.0, rss_mib=80.0, peak_rss_mib=90.0))
    cpu, memory = costs("q", "", used)
    assert (cpu.value, cpu.note, memory.value) == (2000.0, "driver: 50 us", 90.0)
    assert costs("q", "", RESULT) == []


def test_a_rate_that_was_not_measured_is_not_told():
    found = figures("q", single(10), attrs.evolve(RESULT, steady_rate=None))
    assert {figure.what for figure in found} >= {"tasks/s", "accepted/s"}
    assert "tasks/s, steady" not in {figure.what for figure in found}


def test_callbacks_are_held_against_their_ceiling():
    asked = callbacks(200, 8)
    assert asked.tasks == 4000
    assert asked.figure(attrs.evolve(RESULT, steady_rate=490.0)) == pytest.approx(98.0)
    assert asked.also["whole run %"](attrs.evolve(RESULT, rate=450.0)) == pytest.approx(90.0)
    assert callbacks(10, 8).tasks == 16_000  # its ceiling is out of reach


def test_the_limit_of_a_create_stands_at_the_lane_that_creates_take():
    def rounds(cpu_s: float) -> list[Result]:
        return [attrs.evolve(RESULT, usage=Usage(cpu_s=cpu_s, rss_mib=1.0, peak_rss_mib=1.0))] * 3

    found = {create_cost.OURS: rounds(0.3)} | dict.fromkeys(create_cost.BARE, rounds(0.1))
    figures = create_cost._figures(found)
    limited = [figure for figure in figures if figure.limit is not None]
    assert [(figure.value, figure.met) for figure in limited] == [
        (pytest.approx(3.0), False), (0, True),
    ]  # fmt: skip
    assert "express lane" in limited[0].what
    found[create_cost.OURS][1] = attrs.evolve(found[create_cost.OURS][1], unanswered=2)
    assert create_cost._figures(found)[-1].met is False


@pytest.mark.slow
async def test_ringback_is_opened_driven_and_ended(tmp_path):
    with trio.fail_after(60):
        async with open_ringback(tmp_path) as stack:
            result = await drive(Plan(url=stack.url, roots=stack.roots, tasks=20, warm=5, batch=5))
    assert (result.accepted, result.lost, result.duplicates) == (20, 0, 0)
    assert result.states == {"Completed": 20}
    assert result.usage
    assert result.usage.peak_rss_mib > 10
    assert not await trio.Path(f"/proc/{stack.roots[0]}").exists()


@pytest.mark.slow
@pytest.mark.parametrize("server", ["express", "ringback", "hypercorn"])
async def test_the_bare_handler_answers_like_a_create(tmp_path, server):
    with trio.fail_after(60):
        async with open_process("bare", ["-m", "benchmarks.bare_app", server], tmp_path) as bare:
            result = await drive(Plan(url=bare.url, tasks=20, connections=2, dispatch="manual"))
    assert (result.accepted, result.refused, result.stalled) == (20, {}, None)
