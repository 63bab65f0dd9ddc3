"""Records as JSON text: nothing is lost, and texts of earlier versions can be read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from engine.adapters.codec import (
    COLUMNS,
    decode_receipts,
    decode_result,
    decode_spec,
    encode_receipts,
    encode_result,
    encode_spec,
)
from engine.core.commands import Receipt
from engine.core.task import (
    CallbackResult,
    Dispatch,
    ErrorClass,
    Method,
    RetryPolicy,
    TaskSpec,
)
from engine.errors import StoreRejected
from tests.support.builders import a_spec, an_id, at

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
LABELS = st.dictionaries(TEXTS, TEXTS, max_size=3)
MOMENTS = st.datetimes(timezones=st.just(UTC))
SECONDS = st.integers(0, 100) | st.floats(0, 100)
POLICIES = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 100),
    initial_interval_s=SECONDS,
    max_interval_s=SECONDS,
    multiplier=SECONDS,
    jitter=st.booleans(),
)
SPECS = st.builds(
    TaskSpec,
    name=TEXTS,
    callback_url=TEXTS,
    description=st.none() | TEXTS,
    payload=JSON,
    priority=st.integers(-100, 100),
    dispatch=st.none() | st.sampled_from(Dispatch),
    run_at=st.none() | MOMENTS,
    delay_s=st.none() | SECONDS,
    deadline=st.none() | MOMENTS,
    timeout_s=SECONDS,
    retry_policy=POLICIES,
    method=st.sampled_from(Method),
    headers=LABELS,
    metadata=LABELS,
    partition_key=st.none() | TEXTS,
    hops=st.integers(0, 5),
)
RESULTS = st.builds(
    CallbackResult,
    status_code=st.none() | st.integers(100, 599),
    body=st.none() | TEXTS,
    truncated=st.booleans(),
    error_class=st.none() | st.sampled_from(ErrorClass),
    error=st.none() | TEXTS,
)

OTHER_THAN_USUAL = TaskSpec(
    name="naïve ☃",
    callback_url="http://127.0.0.1:9/☃?a=%20",
    description="",
    payload={"nested": [1, 2.5, None, True, '☃\x7f\\"\n', {"": []}], "big": 2**80},
    priority=-3,
    dispatch=Dispatch.MANUAL,
    run_at=at(60),
    delay_s=0.0,
    deadline=at(3600),
    timeout_s=1.5,
    retry_policy=RetryPolicy(max_attempts=7, jitter=False, multiplier=1.25),
    method=Method.PATCH,
    headers={"X-One": "1"},
    metadata={"tenant": "é", "zone": ""},
    partition_key="key",
    hops=2,
)


def again(spec: TaskSpec) -> TaskSpec:
    return decode_spec(encode_spec(spec), spec.name, spec.priority, spec.partition_key)


def test_no_field_of_a_spec_is_forgotten():
    usual = TaskSpec(name="", callback_url="")
    for field in attrs.fields(TaskSpec):
        assert getattr(OTHER_THAN_USUAL, field.name) != getattr(usual, field.name), field.name
    assert again(OTHER_THAN_USUAL) == OTHER_THAN_USUAL
    assert json.loads(encode_spec(OTHER_THAN_USUAL)).keys() == {
        field.name for field in attrs.fields(TaskSpec) if field.name not in COLUMNS
    }


@given(SPECS)
def test_a_spec_comes_back_as_it_went_in(spec: TaskSpec):
    text = encode_spec(spec)
    assert again(spec) == spec
    assert json.loads(text)["timeout_s"] == spec.timeout_s


@given(st.none() | RESULTS)
def test_a_result_comes_back_as_it_went_in(result: CallbackResult | None):
    assert decode_result(encode_result(result)) == result


def test_receipts_come_back_as_they_went_in():
    receipts = (
        Receipt(an_id(1), at(0.000_001)),
        Receipt(an_id(2), datetime(1970, 1, 1, tzinfo=UTC)),
    )
    assert decode_receipts(encode_receipts(receipts)) == receipts


def test_a_default_is_written_if_it_may_change():
    fields = json.loads(encode_spec(TaskSpec(name="n", callback_url="u")))
    assert fields == {
        "callback_url": "u",
        "method": "POST",
        "timeout_s": TaskSpec(name="", callback_url="").timeout_s,
        "retry_policy": attrs.asdict(RetryPolicy()),
    }


def test_texts_of_earlier_versions_can_be_read():
    """They had a key for what is nothing, too."""
    spec = a_spec(payload={"a": 1})
    fields = attrs.asdict(spec)
    earlier = {name: value for name, value in fields.items() if name not in COLUMNS}
    assert decode_spec(json.dumps(earlier), spec.name, spec.priority, None) == spec
    result = CallbackResult(status_code=200)
    assert decode_result(json.dumps(attrs.asdict(result))) == result
    (receipt,) = decode_receipts(
        '[{"task_id":"x","created_at":"2026-01-02T03:04:05.678901+00:00"}]'
    )
    assert receipt == Receipt("x", at(0))


@pytest.mark.parametrize("payload", [float("nan"), float("inf"), {"a": [object()]}, {(): 1}, b""])
def test_what_json_cannot_say_is_refused(payload: Any):
    with pytest.raises(StoreRejected):
        encode_spec(a_spec(payload=payload))


def test_what_nests_too_deeply_is_refused():
    payload: list[Any] = []
    for _ in range(100_000):
        payload = [payload]
    with pytest.raises(StoreRejected):
        encode_spec(a_spec(payload=payload))
