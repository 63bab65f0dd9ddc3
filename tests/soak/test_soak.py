"""The soak itself: are its figures real, does it see what goes wrong, does it draw?

Seconds are too short to say anything of the server; that is what ``python -m tests.soak`` is for.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys

import attrs
import pytest
import trio

from benchmarks.interrupted import EXIT_INTERRUPTED
from benchmarks.peers.processes import NotInstallable
from benchmarks.running import trees
from benchmarks.stack import ROOT
from tests.soak.__main__ import DATA, write
from tests.soak.charts import CHARTS, draw
from tests.soak.judge import descriptors, event_loop, judge, memory, tasks, wal
from tests.soak.ledger import Ledger
from tests.soak.load import Told
from tests.soak.mix import BY_NAME, KINDS, ROUND, kind_of
from tests.soak.run import Report, Settings, soak
from tests.soak.samples import Sample, lag_percentile
from tests.soak.slope import slope, student

SECONDS = 3.0
RATE = 60.0
LEAK_KIB_S = 1024.0
SHORT = Settings(
    seconds=SECONDS,
    rate=RATE,
    sampled_every_s=0.15,
    warm_s=0.6,
    retention_s=10.0,
    visitors=3,
    said_every_s=1.0,
)


@attrs.frozen
class Both:
    """A soak of some seconds, and one of a server that leaks; run side by side."""

    sound: Report
    leaking: Report
    said: list[str]


async def run_both() -> Both:
    found: dict[str, Report] = {}
    said: list[str] = []

    async def run(name: str, settings: Settings) -> None:
        found[name] = await soak(settings, said.append)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "sound", SHORT)
        nursery.start_soon(run, "leaking", attrs.evolve(SHORT, leak_kib_s=LEAK_KIB_S))
    return Both(found["sound"], found["leaking"], said)


@pytest.fixture(scope="module")
def both() -> Both:
    return trio.run(run_both)


@pytest.fixture
def seen(both: Both) -> Report:
    return both.sound


@pytest.mark.proof
def test_samples_are_those_of_a_real_server(seen):
    samples = seen.samples
    assert len(samples) >= 10
    for sample in samples:
        assert 20 < sample.rss_mib < 1000
        assert sample.own_descriptors > 5  # database, WAL, listeners, epoll
        assert sample.descriptors > sample.own_descriptors
        assert sample.wal_mib > 0
        assert sample.database_mib > 0
    late = [sample for sample in samples if sample.lags]
    assert len(late) >= len(samples) // 2
    assert sum(sum(sample.lags.values()) for sample in late) > 50  # ticks of 10 ms
    assert all(sample.waited >= 0 for sample in samples)
    assert samples[-1].trio_tasks > 100  # the executors
    assert max(sample.tasks_per_s for sample in samples) > 0
    assert any(sample.create_p95_ms for sample in samples)


@pytest.mark.proof
def test_nothing_is_lost_and_every_kind_of_task_was_there(seen, both):
    text, held = tasks(seen.told)
    assert held, text
    assert seen.told.created == pytest.approx(SECONDS * RATE, rel=0.2)
    assert seen.told.calls > seen.told.created * 0.95  # cancelled ones have none, flaky ones two
    assert seen.told.asked["Completed"] > seen.told.asked["Cancelled"] > 0
    assert seen.told.visits > 3
    assert any("tasks" in line for line in both.said)
    _, flat = descriptors([sample for sample in seen.samples if sample.at_s >= SHORT.warm_s])
    assert flat


@pytest.mark.proof
def test_the_charts_and_the_samples_are_written(seen, tmp_path):
    bars = judge(seen, "make soak")
    write(seen, bars, tmp_path / DATA)
    kept = json.loads((tmp_path / DATA).read_text("utf-8"))
    assert len(kept["samples"]) == len(seen.samples)
    assert [bar["bar"] for bar in kept["bars"]] == [bar.bar for bar in bars]
    try:
        draw(seen, tmp_path, lambda _text: None)
    except NotInstallable as error:
        pytest.skip(f"what draws cannot be installed here: {error}")
    for chart in CHARTS:
        assert (tmp_path / f"{chart.name}.png").read_bytes().startswith(b"\x89PNG\r\n")
        # Letters are drawn as shapes; what they say stands in comments.
        assert chart.title in (tmp_path / f"{chart.name}.svg").read_text("utf-8")


@pytest.mark.proof
def test_a_planted_leak_misses_the_bar(seen, both):
    leaking = both.leaking
    text, held = memory(leaking.samples)
    assert not held, text
    found = slope([(sample.at_s, sample.rss_mib) for sample in leaking.samples])
    sound = slope([(sample.at_s, sample.rss_mib) for sample in seen.samples])
    assert found is not None
    assert sound is not None
    assert found.an_hour - sound.an_hour > LEAK_KIB_S / 1024 * 3600 / 2
    text, held = tasks(leaking.told)
    assert held, text


@pytest.mark.proof
async def test_an_interrupted_soak_leaves_no_process_behind(tmp_path):
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.soak", "--out", str(tmp_path / "out")],
        cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with trio.fail_after(60):
        while len(below := trees([process.pid]) - {process.pid}) < 2:  # noqa: ASYNC110
            assert process.poll() is None
            await trio.sleep(0.02)  # the server and the load are not there yet
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == EXIT_INTERRUPTED
    with trio.fail_after(10):  # one that it had just started ends by itself, and is then buried
        while any([await trio.Path(f"/proc/{pid}").exists() for pid in below]):  # noqa: ASYNC110
            await trio.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


# -- what is concluded, of samples that are made up ------------------------------------------------


def sample(at_s: float, **more: object) -> Sample:
    usual: dict[str, object] = {
        "at_s": at_s, "rss_mib": 100.0, "descriptors": 60, "own_descriptors": 20, "wal_mib": 4.0,
        "database_mib": 9.0, "lags": {1: 95, 4: 5}, "lag_p99_ms": 4.0, "trio_tasks": 150,
        "tasks_per_s": 300.0, "create_p95_ms": 5.0, "open": 40, "waited": 0.0, "cpu": 0.5, "machine_load": 1.0,
    }  # fmt: skip
    return Sample(**(usual | more))  # type: ignore[arg-type]


def memory_of(hours: float, an_hour: float) -> tuple[str, bool]:
    """Memory that goes up so much, and up and down by itself."""
    chance = random.Random(1)
    at = [second * 5.0 for second in range(int(hours * 720))]
    noise = [3 * math.sin(second / 50) + chance.gauss(0, 0.5) for second in at]
    return memory(
        [
            sample(second, rss_mib=100 + an_hour * second / 3600 + up)
            for second, up in zip(at, noise, strict=True)
        ]
    )


@pytest.mark.parametrize(
    ("hours", "an_hour", "held", "meaning"),
    [
        (8, 0.0, True, "less than 1 MiB/h"),
        (8, 3.0, False, "more than 1 MiB/h"),
        (1, 3600.0, False, "more than 1 MiB/h"),
        (0.05, 0.0, False, "not told: too short a run to tell it from 1 MiB/h"),
        (2, 0.9, False, "not told: too short a run to tell it from 1 MiB/h"),
    ],
)
def test_growth_is_told_from_noise(hours, an_hour, held, meaning):
    text, seen_held = memory_of(hours, an_hour)
    assert seen_held is held, text
    assert text.endswith(meaning)


def test_memory_that_stands_still_for_a_short_time_says_nothing():
    assert not memory([sample(second * 5.0) for second in range(100)])[1]
    assert memory([sample(second * 5.0) for second in range(400)])[1]


def test_too_few_samples_hold_nothing():
    assert not memory([sample(float(second)) for second in range(5)])[1]
    assert not descriptors([sample(0.0)])[1]
    assert not event_loop([])[1]
    assert not wal([])[1]


def test_a_line_is_found_with_its_uncertainty():
    exact = slope([(second, 5 + 2 * second / 3600) for second in range(200)])
    assert exact is not None
    assert exact.low == pytest.approx(exact.high)
    assert exact.an_hour == pytest.approx(2)


@pytest.mark.parametrize(("freedom", "table"), [(2, 4.303), (5, 2.571), (10, 2.228), (18, 2.101)])
def test_the_quantile_is_that_of_the_tables(freedom, table):
    assert student(freedom) == pytest.approx(table, rel=0.04)


def test_descriptors_that_stay_are_seen_and_those_of_connections_are_not():
    assert descriptors([sample(n, descriptors=60 + n) for n in range(40)])[1]
    assert not descriptors([sample(n, own_descriptors=20 + n) for n in range(40)])[1]


def test_a_log_that_grows_is_seen():
    assert wal([sample(0)])[1]
    assert not wal([sample(0, wal_mib=65.0), sample(1)])[1]
    assert not wal([sample(0, wal_mib=0.0)])[1]  # then it was not measured


def test_a_late_loop_is_seen():
    assert event_loop([sample(0), sample(1)])[1]
    assert not event_loop([sample(0), sample(1, lags={1: 90, 80: 10})])[1]
    assert lag_percentile([{1: 98}, {7: 1, 90: 1}], 99) == 7
    assert lag_percentile([], 99) is None


TOLD = Told(
    final=True, at_s=9.0, created=100, ended=100, open=0, refused={}, create_p95_ms=4.0,
    connections=9, visits=3, resumed=0, calls=105, duplicates=0, excused=0, early=0,
    ended_twice=0, wrong={}, strangers=0, held_back_s=0.0, asked={"Completed": 95, "Cancelled": 5},
)  # fmt: skip


@pytest.mark.parametrize(
    "fault",
    [
        {"lost": 1}, {"duplicates": 1}, {"early": 1}, {"ended_twice": 1}, {"unheard": 1},
        {"wrong": {"good Failed": 1}}, {"strangers": 1}, {"asked": {"Processing": 1}},
        {"ended": 99}, {"created": 0, "ended": 0},
    ],
    ids=lambda fault: next(iter(fault)),
)  # fmt: skip
def test_any_fault_of_a_task_misses_the_bar(fault):
    assert tasks(TOLD)[1]
    assert not tasks(attrs.evolve(TOLD, **fault))[1]


@pytest.mark.parametrize(("created", "loaded"), [(100, True), (95, True), (94, False)])
def test_less_than_the_load_that_was_due_holds_no_bar(created, loaded):
    """However little the server was asked to do, nothing else is wrong with it."""
    report = Report(
        settings=Settings(seconds=10.0, warm_s=0.0),
        capacity=20.0,
        rate=10.0,
        samples=[sample(second / 40) for second in range(400)],
        told=attrs.evolve(TOLD, created=created, ended=created),
    )
    bars = [bar for bar in judge(report, "make soak") if bar.bar != "soak: memory"]
    assert {bar.held for bar in bars} == {loaded}
    rate = (
        f"10 s at {created / 10:.1f} tasks/s (10.0/s were due; {created / 200:.0%} of the capacity"
    )
    assert all(bar.tried.startswith(rate) for bar in bars)
    assert all(("less than 95% of the load" in bar.seen) is not loaded for bar in bars)


def test_a_task_whose_create_was_cut_off_may_be_called():
    assert tasks(attrs.evolve(TOLD, strangers=1, refused={"create cut off": 1}))[1]


# -- the books -------------------------------------------------------------------------------------


def test_the_mix_is_what_it_says():
    count = len(ROUND)
    of_a_round = [kind_of(number) for number in range(count)]
    assert {kind.name: of_a_round.count(kind) for kind in KINDS} == {k.name: k.share for k in KINDS}


def good(ledger: Ledger, task_id: str = "a") -> None:
    ledger.accept(task_id, BY_NAME["good"], 0.0)
    ledger.call(task_id, BY_NAME["good"], 1, 1.0)
    ledger.answer(task_id, 1, 200, taken=True)


def test_a_task_that_went_well_is_forgotten():
    ledger = Ledger()
    good(ledger)
    assert (ledger.waiting, ledger.running, ledger.missing()) == (1, 1, ["a"])
    ledger.end("a", "Completed")
    assert (ledger.waiting, ledger.running, len(ledger.open)) == (0, 0, 0)
    assert not ledger.wrong


def test_the_answer_to_a_create_may_come_last():
    ledger = Ledger()
    ledger.call("a", BY_NAME["good"], 1, 1.0)
    ledger.answer("a", 1, 200, taken=True)
    ledger.end("a", "Completed")
    assert ledger.strangers() == ["a"]
    ledger.accept("a", BY_NAME["good"], 0.0)
    assert (ledger.closed, ledger.running, ledger.strangers()) == (1, 0, [])


def test_a_second_call_is_a_duplicate_whenever_it_comes():
    ledger = Ledger()
    good(ledger)
    ledger.call("a", BY_NAME["good"], 1, 2.0)
    ledger.call("a", BY_NAME["good"], 2, 2.0)
    assert ledger.duplicates == 2
    ledger.end("a", "Completed")
    ledger.call("a", BY_NAME["good"], 3, 3.0)
    assert ledger.strangers() == ["a"]


def test_a_call_after_one_whose_caller_left_is_excused():
    ledger = Ledger()
    ledger.accept("a", BY_NAME["good"], 0.0)
    ledger.call("a", BY_NAME["good"], 1, 1.0)
    ledger.answer("a", 1, 200, taken=False)
    ledger.call("a", BY_NAME["good"], 1, 2.0)
    assert (ledger.duplicates, ledger.excused) == (0, 1)


def test_calls_that_must_not_be_are_seen():
    ledger = Ledger()
    ledger.accept("late", BY_NAME["scheduled"], 10.0)
    ledger.call("late", BY_NAME["scheduled"], 1, 11.9)
    assert ledger.early == 1
    ledger.accept("never", BY_NAME["cancelled"], 10.0)
    ledger.call("never", BY_NAME["cancelled"], 1, 11.0)
    assert ledger.duplicates == 1


def test_ends_that_must_not_be_are_seen():
    ledger = Ledger()
    good(ledger)
    ledger.end("a", "Failed")
    ledger.accept("b", BY_NAME["good"], 0.0)
    ledger.end("b", "Completed")
    assert dict(ledger.wrong) == {"good Failed": 1, "good Completed without a call": 1}
    ledger.end("c", "Completed")
    ledger.end("c", "Completed")
    assert ledger.ended_twice == 1
