"""A client hears that its task is accepted when the task is on disk, not sooner."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.murder.trace import WEAK, Traced, run_traced
from tests.murder.trace_log import why_not

TASKS = 80

pytestmark = [
    pytest.mark.proof,
    pytest.mark.slow,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    return run_traced(tmp_path_factory.mktemp("trace") / "full", TASKS)


def test_every_task_is_on_disk_before_its_201_leaves(run: Traced) -> None:
    assert run.accepted == len(run.told) == TASKS
    order = run.order
    assert (len(order.synced), order.early, order.unseen) == (TASKS, [], [])


def test_no_power_loss_loses_what_was_accepted(run: Traced, tmp_path: Path) -> None:
    assert [str(loss) for loss in run.lose_power(30, 0, tmp_path)] == []


def test_a_server_that_does_not_wait_for_the_disk_is_found_out(tmp_path: Path) -> None:
    weak = run_traced(tmp_path / "weak", TASKS, WEAK)
    assert weak.accepted == TASKS
    assert len(weak.order.early) > TASKS // 2
    assert weak.lose_power(10, 0, tmp_path) != []
