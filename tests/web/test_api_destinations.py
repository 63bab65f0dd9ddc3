"""What the API shows of destinations: in figures, in metrics, and when a task asks why it waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.core.outcome import Answer as CallbackAnswer
from tests.support.app import V1, Api, open_api
from tests.support.builders import NOW
from tests.support.fakes import ScriptedNet

DEAD = "http://dead.test/hook?secret=1"
ONCE = {"maxAttempts": 1}


@pytest.fixture
def net() -> ScriptedNet:
    net = ScriptedNet()
    net.script(DEAD, CallbackAnswer(status_code=503))
    return net


@pytest.fixture
async def api(net: ScriptedNet) -> AsyncIterator[Api]:
    async with open_api(net=net) as opened:
        for _ in range(2):
            await opened.executed()
        for _ in range(10):
            task_id = await opened.create(callbackUrl=DEAD, dispatch="auto", retryPolicy=ONCE)
            await opened.until(task_id, "Failed")
        yield opened


async def stats(api: Api) -> Any:
    return (await api.get(V1 + "/stats")).json


async def test_stats_show_the_worst_destinations_first(api: Api) -> None:
    found = await stats(api)
    dead, well = found["destinations"]
    until = datetime.fromisoformat(dead.pop("openUntil"))
    assert NOW + timedelta(seconds=30) <= until <= api.engine.now() + timedelta(seconds=30)
    assert dead == {
        "destination": "http://dead.test:80",
        "breaker": "open",
        "limit": 2,
        "inFlight": 0,
        "attempts": 10,
        "failures": 10,
        "slow": 0,
        "lastError": "the callback answered 503",
    }
    assert (well["breaker"], well["limit"], well["openUntil"]) == ("closed", None, None)
    assert (well["attempts"], well["failures"]) == (2, 0)
    totals = ("destinationsTotal", "destinationsHeld", "breakersOpen", "breakerOpenings")
    assert [found[name] for name in totals] == [2, 1, 1, 1]
    assert found["breakersHalfOpen"] == 0


async def test_metrics_name_only_what_is_not_well(api: Api) -> None:
    text = (await api.get("/metrics", Accept="text/plain")).text
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["ringback_breakers", "open"] == 1
    assert found["ringback_breakers", "half_open"] == 0
    assert found["ringback_destinations_held",] == 1
    assert found["ringback_breaker_openings_total",] == 1
    (unwell,) = [set(key[1:]) for key in found if key[0] == "ringback_destination_unwell"]
    assert unwell == {"http://dead.test:80", "open"}
    assert "receiver.test" not in text
    assert "secret" not in text


async def test_a_task_tells_that_it_waits_for_a_breaker(api: Api) -> None:
    task_id = await api.create(callbackUrl=DEAD, dispatch="auto", retryPolicy=ONCE)
    found = (await api.get(f"{V1}/tasks/{task_id}/explain")).json
    assert found["cause"] == "breaker_open"
    assert found["facts"]["destination"] == "http://dead.test:80"
    assert "10 of 10 recent attempts failed (last: the callback answered 503)" in found["sentence"]
    assert (await api.status(task_id)) == "Queued"
    assert (await api.task(task_id))["attemptsUsed"] == 0
