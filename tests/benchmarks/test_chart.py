"""What the chart of a comparison shows, before it is drawn."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from benchmarks.chart import arrange


def runs(median: float | None, **more: float) -> dict[str, float | None]:
    return {"median": median, "low": median, "high": median} | more


RESULT: dict[str, Any] = {
    "date": "2026-01-02T03:04:05Z",
    "machine": {"cpu": "A Processor", "cores": 2, "fsyncMilliseconds": 1.5, "python": "3.11.7"},
    "settings": {"quick": False, "repeats": 3},
    "stacks": {
        "ringback": {"name": "Ringback", "versions": "ringback 1", "durability": "FULL"},
        "one": {"name": "One", "versions": "one 1, web 2, Redis 7", "durability": "everysec"},
        "two": {"name": "Two", "versions": "two 1, web 2, Redis 7", "durability": "always"},
    },
    "failed": {},
    "workloads": [
        {
            "name": "open-loop",
            "unit": "ms",
            "better": "lower",
            "stacks": {"ringback": runs(4.5), "one": runs(8.25), "two": runs(None)},
        },
        {
            "name": "single",
            "unit": "/s",
            "better": "higher",
            "stacks": {"ringback": runs(4000.0, low=3900.0, high=4200.0), "one": runs(2000.0)},
        },
        {"name": "unknown", "unit": "/s", "better": "higher", "stacks": {}},
    ],
}


def test_a_panel_for_each_known_workload_that_was_measured():
    single, latency = arrange(RESULT)["panels"]

    assert single["title"].startswith("Single creates")
    assert (single["note"], single["log"]) == ("longer is better", False)
    assert (latency["note"], latency["log"]) == ("shorter is better, logarithmic", True)


def test_a_bar_for_each_stack_in_the_order_of_the_stacks():
    arranged = arrange(RESULT)
    single, latency = arranged["panels"]

    assert [stack["name"] for stack in arranged["stacks"]] == ["Ringback", "One", "Two"]
    assert [stack["ours"] for stack in arranged["stacks"]] == [True, False, False]
    assert single["bars"][0] == {"value": 4000.0, "low": 3900.0, "high": 4200.0, "label": "4,000/s"}
    assert [bar and bar["value"] for bar in latency["bars"]] == [4.5, 8.25, None]
    assert latency["bars"][1]["label"] == "8.25 ms"


def test_a_stack_that_was_not_measured_has_no_bar():
    single, _ = arrange(RESULT)["panels"]

    assert single["bars"][2] is None


def labels(**of_one: object) -> tuple[str, list[str]]:
    """The label of One's bar in the panel of single creates, and the caption."""
    result = copy.deepcopy(RESULT)
    stacks = result["workloads"][1]["stacks"]
    stacks["ringback"] |= {"tasks": 10_000, "runs": [{}, {}, {}]}
    stacks["one"] |= {"tasks": 10_000, "runs": [{}, {}, {}]} | of_one
    arranged = arrange(result)
    return arranged["panels"][0]["bars"][1]["label"], arranged["caption"]


def test_a_bar_without_fault_has_no_mark():
    label, caption = labels(lost=0, stalled=0)
    assert label == "2,000/s"
    assert caption == arrange(RESULT)["caption"]


@pytest.mark.parametrize(
    "wrong", ["lost", "duplicates", "unknown", "refused", "unanswered", "unfinished", "stalled"]
)
def test_a_stack_with_a_fault_is_marked(wrong):
    label, caption = labels(**{wrong: 1})
    assert label == "2,000/s !"
    assert caption[0].startswith("! some tasks were lost")


@pytest.mark.parametrize("fewer", [{"tasks": 800}, {"runs": [{}, {}]}])
def test_a_stack_that_did_less_is_marked(fewer):
    label, caption = labels(**fewer)
    assert label == "2,000/s *"
    assert caption[0] == "* fewer tasks or runs than Ringback's."


def test_a_stack_can_have_both_marks():
    label, caption = labels(tasks=800, lost=1)
    assert label == "2,000/s !*"
    assert caption[0].endswith("stalled; * fewer tasks or runs than Ringback's.")


def test_the_caption_tells_day_machine_and_every_version_once():
    head, versions = arrange(RESULT)["caption"]

    assert head == (
        "2026-01-02, median of 3 runs, the line from lowest to highest. "
        "A Processor, 2 cores, shared with the load, fsync 1.5 ms, Python 3.11.7."
    )
    assert versions == "ringback 1, one 1, web 2, Redis 7, two 1."


@pytest.mark.parametrize("known", [True, False])
def test_the_caption_says_what_is_missing_and_leaves_out_what_is_unknown(known):
    result = copy.deepcopy(RESULT) | {"failed": {"three": "no server"}}
    if not known:
        result |= {"machine": {}, "settings": {"repeats": 1}}

    head, _, missing = arrange(result)["caption"]

    assert missing == "Not measured: three."
    assert ("A Processor" in head) == known
    assert head.startswith("2026-01-02, median of" if known else "2026-01-02, 1 run.")
