"""``python -m tests.attack.overload_driver``: loads a server as the benchmarks' driver does, and says
when. A plan as JSON on stdin, what came of it as JSON on stdout; times are on ``perf_counter``, which
all processes of a machine share."""

from __future__ import annotations

import gc
import json
import sys

import attrs

from benchmarks.driver.load import Load
from benchmarks.driver.plan import Plan
from benchmarks.driver.run import Driver
from tests.attack.verdict import percentile


@attrs.frozen(kw_only=True)
class Loaded:
    """What came of a load."""

    began: float
    ended: float  # the last create was answered
    accepted: int
    refused: dict[str, int]
    unanswered: int
    lost: int  # accepted, and not called back
    duplicates: int
    stalled: str | None
    accepted_p95_s: float  # from when it was due to its 201
    behind_p95_s: float  # how late the driver itself was


def load(plan: Plan) -> Loaded:
    """Do what the plan says."""
    driver = Driver(plan)
    made = Load(driver, plan)
    gc.collect()
    gc.freeze()
    gc.disable()  # a pause would look like the server's
    made.run()
    return Loaded(
        began=made.began,
        ended=made.created,
        accepted=len(made.books.began),
        refused=dict(made.refused),
        unanswered=made.unanswered,
        lost=made.lost,
        duplicates=made.books.again.total(),
        stalled=driver.stalled,
        accepted_p95_s=percentile(made.latencies, 95),
        behind_p95_s=percentile(list(made.creates.behind), 95),
    )


if __name__ == "__main__":
    json.dump(attrs.asdict(load(Plan(**json.load(sys.stdin)))), sys.stdout)
