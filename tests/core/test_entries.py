"""Which new tasks could run at once."""

from __future__ import annotations

import pytest

from engine.core.entries import Arrival, arrivals
from engine.core.task import Dispatch
from tests.support.builders import a_spec, an_id, at


def test_one_that_has_to_wait_for_nothing_could_run_at_once():
    spec = a_spec(callback_url="https://Callee.example/hook")
    assert arrivals([(an_id(1), spec)], Dispatch.MANUAL) == (
        Arrival(an_id(1), "https://callee.example:443"),
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"dispatch": Dispatch.MANUAL},
        {"delay_s": 1.0},
        {"run_at": at(0)},
        {"partition_key": "account 7"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_one_that_waits_for_something_else_could_not(fields):
    assert arrivals([(an_id(1), a_spec(**fields))], Dispatch.AUTO) == ()


def test_the_dispatch_of_one_that_names_none_is_the_default():
    tasks = [(an_id(1), a_spec(dispatch=None))]
    assert arrivals(tasks, Dispatch.MANUAL) == ()
    assert len(arrivals(tasks, Dispatch.AUTO)) == 1
