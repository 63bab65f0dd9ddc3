"""What the questions of dead hosts and of calls that are cut off make of what was not there."""

from __future__ import annotations

from collections import Counter
from math import isnan, nan

import attrs
import pytest
import trio

from benchmarks import cancel_leak, dead_host
from benchmarks.report import Figure, print_table, value_text
from benchmarks.tasks import Settings

LEAKS = cancel_leak.Leaks(
    callbacks=100, seconds=1.0, ends=Counter({"Cancelled": 30, "Failed, timeout": 20}),
    not_ended=0, not_one_attempt=0, late_results=0, busy=0, alive=cancel_leak.EXECUTORS,
    overrun_s=0.1, descriptors=0, descriptors_closed=0, connections=0, memory_mib=1.0,
)  # fmt: skip


def missed(figures: list[Figure]) -> list[str]:
    return [figure.what for figure in figures if figure.met is False]


def test_what_was_not_measured_keeps_no_limit(capsys):
    for better in ("lower", "higher"):
        assert Figure("q", "what", nan, limit=1, better=better).met is False
    assert value_text(nan, "ms") == "not measured"
    print_table([Figure("q", "what", nan, "ms", limit=1)])
    assert "not measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, []),
        ({"connections": nan}, ["connections the callee still sees"]),
        ({"ends": Counter({"Cancelled": 40})}, ["cut off: cancelled or timed out"]),
    ],
)
def test_calls_that_were_not_cut_off_and_a_callee_that_does_not_tell_are_missed(changed, found):
    assert missed(cancel_leak.figures(attrs.evolve(LEAKS, **changed))) == found


def test_a_dead_host_that_was_never_tried_is_missed():
    stats = {"breakersOpen": 0, "breakerOpenings": 0, "queueDepth": 0, "attemptsByOutcome": {}}
    assert len(missed(dead_host._state(stats))) == 2
    stats["attemptsByOutcome"] = {"connect_timeout": 1, "dns": 1}
    assert missed(dead_host._state(stats)) == []


def test_latencies_that_were_not_measured_are_missed():
    sent = dead_host.Sent(at={"a": 1.0})
    names = (dead_host.ALONE, dead_host.BESIDE_HEALTHY, dead_host.BESIDE_DEAD)
    phases = {name: dead_host.Phase(healthy=sent) for name in names}
    figures = dead_host._latencies({}, phases)
    assert [isnan(figure.value) for figure in figures] == [True, True]
    assert len(missed(figures)) == 2


@pytest.mark.slow
async def test_dead_hosts_are_tried_and_every_other_task_is_accounted_for(tmp_path):
    settings = Settings(quick=True, full=False, queued=None, directory=tmp_path)
    with trio.fail_after(120):
        figures = await dead_host.run(settings, 1.0, "--connect-timeout", "0.2")
    found = {figure.what: figure for figure in figures if not figure.stat}
    assert [what for what, figure in found.items() if figure.met is False] == []
    note = found["healthy host: lost"].note
    assert note == "500 accepted, 500 called"  # with the warm-up, which is of 2 s
