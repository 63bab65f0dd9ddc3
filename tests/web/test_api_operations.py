"""Health, metrics, and the API's description of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import jsonschema  # type: ignore[import-untyped]
import pytest
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families

from engine.core.outcome import Answer as CallbackAnswer
from tests.support.app import HOOK, V1, Api, conform, open_api
from tests.support.fakes import Held, ScriptedNet

BAD_HOOK = "http://receiver.test/bad"


@pytest.fixture
def net() -> ScriptedNet:
    return ScriptedNet()


@pytest.fixture
async def api(net: ScriptedNet) -> AsyncIterator[Api]:
    async with open_api(net=net) as opened:
        yield opened


async def test_a_running_engine_is_live_and_ready(api: Api) -> None:
    assert (await api.get("/healthz")).json == {"status": "ok"}
    assert (await api.get("/readyz")).json == {"status": "ready"}


async def test_a_stopping_engine_is_live_but_not_ready(api: Api) -> None:
    api.engine.stop()
    assert (await api.get("/healthz")).status == 200
    answer = await api.get("/readyz")
    assert (answer.status, answer.kind) == (503, "stopping")


# -- metrics ---------------------------------------------------------------------------------


async def samples(api: Api) -> Mapping[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a scrape gives, by name and labels."""
    answer = await api.get("/metrics", Accept="text/plain")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_metrics_show_tasks_attempts_and_executors(api: Api, net: ScriptedNet) -> None:
    net.script(BAD_HOOK, CallbackAnswer(status_code=410))
    await api.executed()
    await api.executed(callbackUrl=BAD_HOOK)
    await api.create()
    net.script(HOOK, Held())
    await api.create(dispatch="auto")
    await net.wait_for_calls(3)
    found = await samples(api)
    for status in ("Completed", "Failed", "Queued", "Processing"):
        assert found["ringback_tasks", (("status", status),)] == 1
    outcomes = {key: value for key, value in found.items() if key[0] == "ringback_attempts_total"}
    assert sum(outcomes.values()) == 2
    assert found["ringback_attempt_seconds_count", ()] == 2
    assert found["ringback_attempt_seconds_bucket", (("le", "+Inf"),)] == 2
    assert found["ringback_queue_depth", ()] == 1
    assert found["ringback_executors", ()] == 4
    assert found["ringback_executors_busy", ()] == 1
    assert found["ringback_stream_watchers", ()] == 0
    assert found["ringback_newest_event", ()] == 4 + 4 + 1 + 3
    assert found["ringback_commits_total", ()] >= 1
    assert found["ringback_late_results_total", ()] == 0


async def test_two_apps_do_not_share_metrics(api: Api) -> None:
    await api.create()
    async with open_api(net=ScriptedNet()) as other:
        assert (await samples(other))["ringback_queue_depth", ()] == 0
    assert (await samples(api))["ringback_queue_depth", ()] == 1


# -- description -----------------------------------------------------------------------------


@pytest.mark.slow
async def test_the_description_is_valid_openapi(api: Api) -> None:
    document = (await api.get("/openapi.json")).json
    assert document["openapi"].startswith("3.1")
    validate(document)


async def test_every_operation_has_a_name_of_its_own(api: Api) -> None:
    paths = (await api.get("/openapi.json")).json["paths"]
    names = [
        operation["operationId"] for methods in paths.values() for operation in methods.values()
    ]
    assert len(names) == len(set(names))


async def test_every_url_that_is_served_is_described_and_the_other_way_round(api: Api) -> None:
    paths = (await api.get("/openapi.json")).json["paths"]
    described = {(method.upper(), path) for path, item in paths.items() for method in item}
    served = {
        (method, rule.rule.replace("<", "{").replace(">", "}"))
        for rule in api.app.url_map.iter_rules()
        for method in set(rule.methods or ()) - {"HEAD", "OPTIONS"}
        if not rule.websocket
    }
    assert served == described


async def test_the_description_names_what_every_field_must_hold(api: Api) -> None:
    schemas = (await api.get("/openapi.json")).json["components"]["schemas"]
    spec = schemas["TaskSpec"]
    assert set(spec["required"]) == {"name", "callbackUrl"}
    assert spec["additionalProperties"] is False
    assert spec["properties"]["name"] == {"type": "string", "minLength": 1, "maxLength": 200}
    assert spec["properties"]["timeoutSeconds"]["maximum"] == 1800
    assert spec["properties"]["priority"]["default"] == 0
    assert schemas["RetryPolicy"]["properties"]["maxAttempts"]["default"] == 3


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "x" * 201, "callbackUrl": HOOK},
        {"name": "x", "callbackUrl": HOOK, "priority": 101},
        {"name": "x", "callbackUrl": HOOK, "colour": "red"},
        {"name": "x", "callbackUrl": HOOK, "retryPolicy": {"maxAttempts": 0}},
        {"name": "x", "callbackUrl": HOOK, "method": "BREW"},
        {"name": "x", "callbackUrl": HOOK, "metadata": {"a": 1}},
    ],
)
async def test_what_the_schema_refuses_is_refused(api: Api, body: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        conform(body, {"$ref": "#/components/schemas/TaskSpec"})
    assert (await api.post(f"{V1}/tasks", body)).status == 400


@pytest.mark.parametrize("accept", ["text/html", "*/*"])
async def test_the_description_can_be_read_by_people(api: Api, accept: str) -> None:
    answer = await api.get("/docs", Accept=accept)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "/api/v1/tasks/{id}/execute" in answer.text
