"""What the README shows of the comparison is what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks.in_readme import README, SHOWN, in_readme, table, without_runs

RESULT = {
    "date": "2026-01-02T03:04:05Z",
    "settings": {"repeats": 3},
    "machine": {"cpu": "a processor", "cores": 2, "python": "3.11.7"},
    "stacks": {
        "ringback": {"name": "Ringback", "versions": "ringback 1.0", "durability": "fsync"},
        "other": {"name": "Other", "versions": "other 2.0, store 3.0", "durability": "none"},
    },
    "failed": {},
    "workloads": [
        {
            "name": "single",
            "unit": "/s",
            "better": "higher",
            "stacks": {
                "ringback": {
                    "median": 1500.0,
                    "ratio": 1.0,
                    "cpuSecondsPer1000": 0.5,
                    "peakMib": 100.0,
                    "lost": 0,
                    "duplicates": 0,
                    "runs": [{}],
                },
                "other": {
                    "median": 750.0,
                    "ratio": 2.0,
                    "cpuSecondsPer1000": 1.5,
                    "peakMib": 300.0,
                    "lost": 2,
                    "duplicates": 1,
                    "refused": 3,
                    "runs": [{}],
                },
            },
        },
        {
            "name": "open-loop",
            "unit": "ms",
            "better": "lower",
            "stacks": {
                "ringback": {"median": 5.0, "ratio": 1.0, "lost": 0, "duplicates": 0, "runs": []}
            },
        },
    ],
}


def test_every_stack_has_a_row_with_ratios_and_losses():
    ours, other = table(RESULT).splitlines()[2:4]
    assert ours == "| **Ringback** (fsync) | 1,500/s | 5 ms | 0.50 | 100 | 0, 0, 0 |"
    assert other == "| Other (none) | 750/s (2.00 ×) | – | 1.50 | 300 | 2, 1, 3 |"


def test_single_runs_are_not_kept():
    assert "runs" not in json.dumps(without_runs(RESULT))
    assert "runs" in json.dumps(RESULT)


def test_the_table_takes_the_place_of_the_one_before():
    text = "a\n<!-- comparison -->\nold\n<!-- /comparison -->\nb\n"
    assert in_readme(text, "new") == "a\n<!-- comparison -->\nnew\n<!-- /comparison -->\nb\n"


def test_the_readme_shows_what_is_kept():
    shown = re.search(
        r"<!-- comparison -->\n(.*?)\n<!-- /comparison -->",
        README.read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert shown is not None
    assert shown[1] == table(json.loads(SHOWN.read_text(encoding="utf-8")))
    for name in re.findall(
        r"\]\((benchmarks/comparison\.\w+)\)", README.read_text(encoding="utf-8")
    ):
        assert Path(README.parent, name).exists()
