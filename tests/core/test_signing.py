"""Signatures and secrets; the public ``standardwebhooks`` package is the judge of the signatures."""

from __future__ import annotations

import base64
import hashlib
import traceback
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from engine import EngineConfig, Secret
from engine.adapters.system import SystemClock
from engine.core.callback import CallbackRequest, build_request
from engine.core.signing import signature
from engine.core.task import Method, Status, Task, TaskSpec
from engine.errors import InvalidTask
from engine.secret import KEY_BYTES_MAX, KEY_BYTES_MIN, SECRETS_MAX, parse_secrets

OLD, NEW, OTHER = (Secret(bytes([n]) * 32) for n in (1, 2, 3))
TASK_ID = "019b7d2e-1c00-7000-8000-000000000001"


def build(*secrets: Secret, age: timedelta = timedelta(0), **fields: Any) -> CallbackRequest:
    """A request of now: the judge looks at its own clock."""
    now = SystemClock().now() - age
    spec = TaskSpec(**{"name": "ship", "callback_url": "http://h/", **fields})
    task = Task(
        id=TASK_ID, spec=spec, status=Status.PROCESSING, version=1, created_at=now,
        updated_at=now, due_at=now, rank=0, attempt=1,
    )  # fmt: skip
    return build_request(task, now, "00f067aa0ba902b7", "Ringback/1.0", secrets=secrets)


def accepted(request: CallbackRequest, knows: Secret, body: bytes | None = None) -> bool:
    """Whether a receiver with this secret takes the call."""
    verifier = Webhook(knows.reveal())
    try:
        verifier.verify(
            request.body if body is None else body, dict(request.headers), json_parse=False
        )
    except WebhookVerificationError:
        return False
    return True


def altered(request: CallbackRequest, **headers: str) -> CallbackRequest:
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    return attrs.evolve(request, headers={**request.headers, **changed})


# -- signatures --------------------------------------------------------------------------------


def test_the_example_of_the_specification_comes_out() -> None:
    """The vector in the public package's own tests."""
    secret = Secret.parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = signature(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}', [secret]
    )
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_every_one_of_several_secrets_verifies_alone() -> None:
    request = build(NEW, OLD, OTHER, payload={"a": 1})
    assert all(accepted(request, knows) for knows in (NEW, OLD, OTHER))
    assert not accepted(request, Secret(bytes(32)))


def test_receivers_of_the_old_and_of_the_new_secret_both_accept_during_a_rotation() -> None:
    before, during, after = build(OLD), build(NEW, OLD), build(NEW)
    assert [accepted(request, OLD) for request in (before, during, after)] == [True, True, False]
    assert [accepted(request, NEW) for request in (before, during, after)] == [False, True, True]


def test_the_signatures_come_in_the_order_of_the_secrets() -> None:
    request = build(NEW, OLD)
    moment = datetime.fromtimestamp(int(request.headers["webhook-timestamp"]), UTC)
    assert request.headers["webhook-signature"].split(" ") == [
        Webhook(secret.reveal()).sign(TASK_ID, moment, request.body.decode())
        for secret in (NEW, OLD)
    ]


def test_a_changed_body_id_or_timestamp_is_refused() -> None:
    request = build(NEW)
    moment = int(request.headers["webhook-timestamp"])
    assert accepted(request, NEW)
    assert not accepted(request, NEW, body=request.body.replace(b"ship", b"shop"))
    assert not accepted(altered(request, webhook_id=TASK_ID[:-1] + "2"), NEW)
    assert not accepted(altered(request, webhook_timestamp=str(moment + 1)), NEW)


def test_a_call_of_an_hour_ago_is_refused() -> None:
    assert not accepted(build(NEW, age=timedelta(hours=1)), NEW)


@pytest.mark.parametrize("method", list(Method))
def test_calls_of_every_method_are_signed_also_without_a_body(method: Method) -> None:
    request = build(NEW, method=method)
    assert (request.body == b"") is (method in (Method.GET, Method.DELETE))
    assert accepted(request, NEW)


def test_without_a_secret_nothing_is_signed() -> None:
    assert "webhook-signature" not in build().headers


keys = st.binary(min_size=KEY_BYTES_MIN, max_size=KEY_BYTES_MAX).map(Secret)
payloads = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(payloads, st.lists(keys, min_size=1, max_size=4, unique=True))
def test_any_payload_verifies_with_any_secret(payload: Any, secrets: list[Secret]) -> None:
    request = build(*secrets, payload=payload)
    for secret in secrets:
        document = Webhook(secret.reveal()).verify(request.body, dict(request.headers))
        assert document["payload"] == payload


@pytest.mark.parametrize("name", ["webhook-signature", "Webhook-Id", "WEBHOOK-TIMESTAMP"])
def test_a_task_cannot_bring_a_signature_of_its_own(name: str) -> None:
    spec = TaskSpec(name="forged", callback_url="http://h/", headers={name: "v1,x"})
    with pytest.raises(InvalidTask, match="set by the engine"):
        spec.check()


# -- secrets -----------------------------------------------------------------------------------


@given(keys)
def test_a_secret_is_read_from_its_text_as_the_public_package_reads_it(secret: Secret) -> None:
    assert Secret.parse(secret.reveal()) == secret
    assert Webhook(secret.reveal())._whsecret == secret.key


def test_a_secret_shows_its_key_id_and_nothing_else() -> None:
    key_id = hashlib.sha256(NEW.key).hexdigest()[:8]
    assert str(NEW) == repr(NEW) == f"{NEW}" == f"<Secret {key_id}>"
    assert repr((NEW,)) == f"(<Secret {key_id}>,)"
    assert "ecret" not in repr(EngineConfig(signing_secrets=[NEW]))


def base64_of(length: int) -> str:
    return base64.b64encode(b"\xfb" * length).decode()


WRONG = {
    "no prefix": (base64_of(32), "must begin with whsec_"),
    "another prefix": ("whsk_" + base64_of(32), "must begin with whsec_"),
    "too short": ("whsec_" + base64_of(23), "must hold 24 to 64 bytes, not 23"),
    "too long": ("whsec_" + base64_of(65), "must hold 24 to 64 bytes, not 65"),
    "empty": ("whsec_", "must hold 24 to 64 bytes, not 0"),
    "no padding": ("whsec_" + base64_of(32).rstrip("="), "must be base64"),
    "the alphabet of URLs": ("whsec_" + base64_of(32).replace("+", "-"), "must be base64"),
    "not ASCII": ("whsec_" + "ü" * 32, "must be base64"),
    "a quoted one": (f'"whsec_{base64_of(32)}"', "must begin with whsec_"),
}


@pytest.mark.parametrize("text", ["", " ,\n"])
def test_no_secret_is_no_secret(text: str) -> None:
    assert parse_secrets(text) == ()


@pytest.mark.parametrize("separator", [",", " ", "\n", ", ", ",\r\n"])
def test_secrets_are_separated_by_commas_and_blanks(separator: str) -> None:
    text = separator.join(secret.reveal() for secret in (NEW, OLD)) + "\n"
    assert EngineConfig(signing_secrets=text).signing_secrets == (NEW, OLD)
    assert EngineConfig(signing_secrets=[NEW, OLD.reveal()]).signing_secrets == (NEW, OLD)


@pytest.mark.parametrize(("wrong", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_secret_is_named_by_its_place_and_never_shown(wrong: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^signing secret 2 {said}") as caught:
        EngineConfig(signing_secrets=[NEW, wrong])
    shown = "".join(traceback.format_exception(caught.value))
    for secret in (NEW.reveal(), wrong):
        part = secret.removeprefix("whsec_")[:8]
        assert not part or part not in shown


def test_the_same_secret_twice_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"^signing secret 3 is also number 1$"):
        parse_secrets([NEW, OLD, NEW])


def test_there_are_only_so_many_secrets() -> None:
    secrets = [Secret(bytes([n]) * 24) for n in range(SECRETS_MAX + 1)]
    assert len(parse_secrets(secrets[1:])) == SECRETS_MAX
    with pytest.raises(ValueError, match="at most 10 signing secrets, not 11"):
        parse_secrets(secrets)
