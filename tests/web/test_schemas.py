"""What the API takes: every field that is wrong is named, all of them at once."""

from __future__ import annotations

import contextlib
import gc
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from engine import Dispatch, Method, RetryPolicy, Status, TaskSpec
from engine.errors import InvalidTask
from web.naming import camel, pointer
from web.problems import problem_of
from web.routes.tasks import Batch
from web.schemas import (
    CancelQuery,
    DequeueOptions,
    EventsQuery,
    ListQuery,
    RedriveFilter,
    TaskPatch,
    UnversionedTask,
)
from web.structuring import BODY, PROBLEMS_MAX, QUERY, Invalid, structure

GOOD = {"name": "invoice", "callbackUrl": "https://example.com/hook?x=1"}


def problems(value: Any, kind: type = TaskSpec) -> dict[str, str]:
    """Pointer → what is wrong."""
    with pytest.raises(Invalid) as caught:
        structure(BODY, value, kind)
    found = dict(caught.value.problems)
    assert len(found) == len(caught.value.problems), "a field is named twice"
    return found


def query_problems(value: dict[str, str], kind: type) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        structure(QUERY, value, kind)
    return dict(caught.value.problems)


def test_a_task_with_the_least_fields_gets_the_documented_defaults() -> None:
    spec = structure(BODY, GOOD, TaskSpec)
    assert spec == TaskSpec(name="invoice", callback_url="https://example.com/hook?x=1")
    assert (spec.priority, spec.timeout_s, spec.method) == (0, 10.0, Method.POST)
    assert spec.retry_policy == RetryPolicy(
        max_attempts=3,
        initial_interval_s=2.0,
        max_interval_s=30.0,
        multiplier=2.0,
        jitter=True,
    )


def test_every_field_of_a_task_is_read() -> None:
    moment = "2026-01-02T03:04:05Z"
    spec = structure(
        BODY,
        {
            **GOOD,
            "description": "what it is for",
            "payload": {"any": ["json", 1, None]},
            "priority": -100,
            "dispatch": "auto",
            "runAt": moment,
            "deadline": "2026-01-02T05:04:05+02:00",
            "timeoutSeconds": 1800,
            "retryPolicy": {
                "maxAttempts": 1,
                "initialIntervalSeconds": 0,
                "maxIntervalSeconds": 0.5,
                "multiplier": 1,
                "jitter": False,
            },
            "method": "PUT",
            "headers": {"X-Tenant": "a"},
            "metadata": {"a": "b"},
            "partitionKey": "customer 7",
        },
        TaskSpec,
    )
    assert spec.dispatch is Dispatch.AUTO
    assert spec.run_at == spec.deadline == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert spec.timeout_s == 1800
    assert spec.retry_policy.max_interval_s == 0.5
    assert spec.headers == {"X-Tenant": "a"}
    assert spec.problems() == []


@pytest.mark.parametrize(
    ("fields", "where", "says"),
    [
        ({"name": ""}, "/name", "must have 1 to 200 characters, not 0"),
        ({"name": "x" * 201}, "/name", "not 201"),
        ({"name": None}, "/name", "must be text"),
        ({"name": 7}, "/name", "must be text"),
        ({"name": "a\x00b"}, "/name", "must not contain NUL"),
        ({"name": "\ud800"}, "/name", "must not contain lone surrogates"),
        ({"callbackUrl": "ftp://example.com/"}, "/callbackUrl", "http:// or https://"),
        ({"callbackUrl": "http://"}, "/callbackUrl", "must name a host"),
        ({"callbackUrl": "http://a:b@example.com/"}, "/callbackUrl", "user name"),
        ({"callbackUrl": "http://example.com:0/"}, "/callbackUrl", "port"),
        ({"callbackUrl": "http://example.com:99999/"}, "/callbackUrl", "a port from 1"),
        ({"callbackUrl": "http://exa mple.com/"}, "/callbackUrl", "without blanks"),
        ({"callbackUrl": ["http://example.com"]}, "/callbackUrl", "must be text"),
        ({"description": 1}, "/description", "must be text"),
        ({"description": "x" * 10_001}, "/description", "10000 characters"),
        ({"priority": 101}, "/priority", "must be from -100 to 100, not 101"),
        ({"priority": 1.0}, "/priority", "must be an integer"),
        ({"priority": True}, "/priority", "must be an integer"),
        ({"priority": "1"}, "/priority", "must be an integer"),
        ({"priority": None}, "/priority", "must be an integer"),
        ({"dispatch": "magic"}, "/dispatch", "must be one of manual, auto"),
        ({"dispatch": ["auto"]}, "/dispatch", "must be one of manual, auto"),
        ({"runAt": "tomorrow"}, "/runAt", "Invalid isoformat string"),
        ({"runAt": "2026-01-02T03:04:05"}, "/runAt", "with a zone"),
        ({"runAt": 1767323045}, "/runAt", "must be text, a date and time"),
        ({"deadline": "0001-01-01T00:00:00+14:00"}, "/deadline", "years 1 to 9999"),
        ({"delaySeconds": -1}, "/delaySeconds", "must be from 0"),
        ({"delaySeconds": "5"}, "/delaySeconds", "must be a number"),
        ({"timeoutSeconds": 0.05}, "/timeoutSeconds", "must be from 0.1 to 1800"),
        ({"timeoutSeconds": 1801}, "/timeoutSeconds", "must be from 0.1 to 1800"),
        ({"timeoutSeconds": True}, "/timeoutSeconds", "must be a number"),
        ({"retryPolicy": []}, "/retryPolicy", "must be an object"),
        ({"retryPolicy": {"maxAttempts": 0}}, "/retryPolicy/maxAttempts", "from 1 to 100"),
        ({"retryPolicy": {"multiplier": 0.5}}, "/retryPolicy/multiplier", "from 1 to 100"),
        ({"retryPolicy": {"jitter": "yes"}}, "/retryPolicy/jitter", "must be true or false"),
        ({"retryPolicy": {"max_attempts": 1}}, "/retryPolicy/max_attempts", "not a known field"),
        ({"method": "BREW"}, "/method", "must be one of POST, PUT, PATCH, GET, DELETE"),
        ({"headers": {"a": 1}}, "/headers", "whose values are all text"),
        ({"headers": ["a"]}, "/headers", "must be an object"),
        ({"headers": {"X": "a\r\nb"}}, "/headers", "visible ASCII"),
        ({"headers": {"a b": "c"}}, "/headers", "not a header name"),
        ({"headers": {"Webhook-Signature": "c"}}, "/headers", "set by the engine"),
        ({"headers": {"Host": "c"}}, "/headers", "set by the engine"),
        ({"headers": {"a": "1", "A": "2"}}, "/headers", "the same header twice"),
        ({"headers": {f"x{n}": "" for n in range(21)}}, "/headers", "at most 20"),
        ({"metadata": {"a": None}}, "/metadata", "whose values are all text"),
        ({"metadata": {"": "x"}}, "/metadata", "1 to 100 characters"),
        ({"metadata": {f"x{n}": "" for n in range(21)}}, "/metadata", "at most 20"),
        ({"partitionKey": ""}, "/partitionKey", "1 to 200 characters"),
        ({"callback_url": "http://example.com/"}, "/callback_url", "is not a known field"),
        ({"a/b~c": 1}, "/a~1b~0c", "is not a known field"),
    ],
)
def test_a_broken_rule_names_its_field(fields: dict[str, Any], where: str, says: str) -> None:
    found = problems({**GOOD, **fields})
    assert list(found) == [where]
    assert says in found[where]


@pytest.mark.parametrize("missing", ["name", "callbackUrl"])
def test_a_missing_field_is_named(missing: str) -> None:
    value = {name: item for name, item in GOOD.items() if name != missing}
    assert problems(value) == {f"/{missing}": "is missing"}


def test_all_wrong_fields_are_named_at_once() -> None:
    found = problems(
        {
            "callbackUrl": "nowhere",
            "priority": "high",
            "colour": "red",
            "taste": "sweet",
            "retryPolicy": {"maxAttempts": 1000, "jitter": None, "patience": 1},
            "metadata": {"a": 1},
        }
    )
    assert set(found) == {
        "/name",
        "/callbackUrl",
        "/priority",
        "/colour",
        "/taste",
        "/retryPolicy/maxAttempts",
        "/retryPolicy/jitter",
        "/retryPolicy/patience",
        "/metadata",
    }


@pytest.mark.parametrize("value", [None, [], "text", 7, True])
def test_anything_but_an_object_is_wrong_as_a_whole(value: Any) -> None:
    assert problems(value) == {"": "must be an object"}


def test_items_of_a_list_are_named_by_index() -> None:
    assert problems({"taskIds": "abc"}, RedriveFilter) == {"/taskIds": "must be a list"}
    assert problems({"taskIds": {"a": 1}}, RedriveFilter) == {"/taskIds": "must be a list"}
    found = problems({"taskIds": ["a", 1, None], "limit": 0}, RedriveFilter)
    assert found == {
        "/taskIds/1": "must be text",
        "/taskIds/2": "must be text",
        "/limit": "must be from 1 to 1000, not 0",
    }


@pytest.mark.parametrize("name", ["name", "priority", "callbackUrl"])
def test_a_patch_cannot_make_a_field_null_that_every_task_has(name: str) -> None:
    assert set(problems({name: None}, TaskPatch)) == {f"/{name}"}


@pytest.mark.parametrize("name", ["description", "payload", "runAt"])
def test_a_patch_can_clear_what_a_task_may_lack(name: str) -> None:
    structure(BODY, {name: None}, TaskPatch)


def test_a_patch_knows_only_what_may_change() -> None:
    found = problems({"status": "Completed", "metadata": {}}, TaskPatch)
    assert set(found) == {"/status", "/metadata"}


@pytest.mark.parametrize("seconds", [0, 86_401, -5])
def test_a_lease_is_between_a_second_and_a_day(seconds: int) -> None:
    assert set(problems({"leaseSeconds": seconds}, DequeueOptions)) == {"/leaseSeconds"}


def test_the_unversioned_dialect_names_its_own_fields() -> None:
    assert problems({"priority": 1000}, UnversionedTask) == {
        "/callbackUrl": "is missing",
        "/priority": "must be from -100 to 100, not 1000",
    }
    assert set(problems({"callbackUrl": "x", "task_data": 1}, UnversionedTask)) == {
        "/callbackUrl",
        "/task_data",
    }


# -- query strings ---------------------------------------------------------------------------


def test_query_values_are_read_from_text() -> None:
    given = structure(
        QUERY,
        {
            "status": "Queued",
            "priority": "-3",
            "createdAfter": "2026-01-02T03:04:05+01:00",
            "page": "2",
            "size": "250",
        },
        ListQuery,
    )
    assert given == ListQuery(
        status=Status.QUEUED,
        priority=-3,
        created_after=datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC),
        page=2,
        size=250,
    )
    assert structure(QUERY, {"inFlight": "True"}, CancelQuery).in_flight
    assert not structure(QUERY, {"inFlight": "0"}, CancelQuery).in_flight


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        (ListQuery, {"status": "Lost"}, "must be one of Queued"),
        (ListQuery, {"status": "queued"}, "must be one of Queued"),
        (ListQuery, {"priority": "high"}, "must be an integer"),
        (ListQuery, {"priority": "99999999999999999999"}, "must be an integer"),
        (ListQuery, {"priority": "999"}, "must be from -100 to 100"),
        (ListQuery, {"createdAfter": "2026-01-02"}, "with a zone"),
        (ListQuery, {"createdBefore": "soon"}, "Invalid isoformat string"),
        (ListQuery, {"page": "0"}, "must be from 1"),
        (ListQuery, {"page": "1e3"}, "must be an integer"),
        (ListQuery, {"page": "1_0"}, "must be an integer"),
        (ListQuery, {"page": "１"}, "must be an integer"),
        (ListQuery, {"page": "9" * 5000}, "must be"),
        (ListQuery, {"size": "251"}, "must be from 1 to 250"),
        (ListQuery, {"limit": "-1"}, "must be from 1 to 250"),
        (ListQuery, {"colour": "red"}, "is not a known field"),
        (CancelQuery, {"inFlight": "yes"}, "must be true or false"),
        (EventsQuery, {"after": "-1"}, "must be from 0"),
        (EventsQuery, {"after": "last"}, "must be an integer"),
        (EventsQuery, {"snapshot": "2"}, "must be true or false"),
    ],
)
def test_a_bad_query_value_names_its_parameter(
    kind: type, value: dict[str, str], says: str
) -> None:
    found = query_problems(value, kind)
    assert list(found) == [f"/{name}" for name in value]
    assert all(says in text for text in found.values())


# -- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("name", "name"),
        ("callback_url", "callbackUrl"),
        ("timeout_s", "timeoutSeconds"),
        ("p95_s", "p95Seconds"),
        ("initial_interval_s", "initialIntervalSeconds"),
    ],
)
def test_names_are_spelled_in_camel_case_with_units_in_full(name: str, spelled: str) -> None:
    assert camel(name) == spelled


def test_pointers_escape_what_rfc_6901_says() -> None:
    assert pointer(()) == ""
    assert pointer(["a/b", 3, "m~n"]) == "/a~1b/3/m~0n"


def test_paths_of_the_engine_become_pointers_of_the_api() -> None:
    error = InvalidTask([((0, "retry_policy", "max_attempts"), "must be less")])
    problem = problem_of(error)
    assert [attrs.asdict(one) for one in problem.errors] == [
        {"pointer": "/0/retryPolicy/maxAttempts", "detail": "must be less"}
    ]


def test_a_document_names_a_limited_number_of_problems():
    assert len(problems({"tasks": [0] * 10_000}, Batch)) == PROBLEMS_MAX
    assert len(problems({**GOOD, **{f"x{n}": 0 for n in range(1_000)}})) == PROBLEMS_MAX


@pytest.mark.parametrize("index", [0, PROBLEMS_MAX - 1, PROBLEMS_MAX, 3 * PROBLEMS_MAX + 7])
def test_a_wrong_item_of_a_long_list_is_named_by_its_place(index):
    tasks: list[Any] = [GOOD] * (4 * PROBLEMS_MAX)
    tasks[index] = {**GOOD, "priority": "high"}
    assert problems({"tasks": tasks}, Batch) == {
        f"/tasks/{index}/priority": "must be an integer",
    }


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"name": 1, "callbackUrl": "http://x/"}, TaskSpec),
        ({**GOOD, "method": "BREW"}, TaskSpec),
        ({**GOOD, "retryPolicy": {"maxAttempts": "x"}}, TaskSpec),
        ({**GOOD, "runAt": "soon"}, TaskSpec),
        ({**GOOD, "unknown": 1}, TaskSpec),
        ({"tasks": "none"}, Batch),
        ({"tasks": [GOOD, {"name": ""}]}, Batch),
    ],
)
def test_a_refused_document_waits_for_no_collector(value, kind):
    structure(BODY, {"tasks": [GOOD]}, Batch)  # makes what is made once
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(Invalid):
            structure(BODY, value, kind)
            pytest.fail("it was taken")
        assert gc.collect() == 0
    finally:
        gc.enable()
