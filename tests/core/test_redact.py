"""Secrets do not survive in what is kept of an answer, nor in what is shown."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, strategies as st

from engine.core.outcome import Answer
from engine.core.redact import MASK, masked, masked_log, without_secrets
from engine.core.task import ErrorClass

SECRET = 'p&ss/"w<rd>+ of=8'
KEY = "rbk_ci_" + "aB3-_" * 8 + "xyz"


def body_of(text: bytes, headers: dict[str, str], *others: str) -> bytes:
    return without_secrets(Answer(status_code=200, body=text), headers, others).body


SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "json": json.dumps,
    "json with slashes escaped": lambda text: json.dumps(text).replace("/", "\\/"),
    "json for html": lambda text: (
        json.dumps(text).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    ),
    "html": html.escape,
    "percent": lambda text: quote(text, safe=""),
    "percent in a path": quote,
    "form": quote_plus,
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64url": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
}


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_a_header_that_the_callee_repeats_is_masked_however_it_is_spelled(
    spell: Callable[[str], str],
) -> None:
    repeated = f"you sent {spell(SECRET)} and {spell(SECRET)}!".encode()
    left = body_of(repeated, {"X-Custom": SECRET})
    assert left.count(MASK.encode()) == 2
    assert spell(SECRET).encode() not in left
    assert left.startswith(b"you sent ")
    assert left.endswith(b"!")


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_a_secret_somewhere_in_base64_is_masked(before: bytes, after: bytes) -> None:
    left = body_of(base64.b64encode(before + SECRET.encode() + after), {"Authorization": SECRET})
    parts = left.split(MASK.encode())
    assert len(parts) == 2
    for part in parts:
        for start in range(min(4, len(part))):
            whole = part[start : start + (len(part) - start) // 4 * 4]
            assert SECRET[4:-4].encode() not in base64.b64decode(whole)


@pytest.mark.parametrize(
    ("name", "value", "repeated"),
    [
        ("Authorization", "Bearer abcdefgh12345", "abcdefgh12345"),
        ("Authorization", "Basic " + base64.b64encode(b"anna:correct horse").decode(), "correct horse"),
        ("Cookie", "theme=dark; session=0123456789abcdef", "0123456789abcdef"),
        ("X-Signature", 'key="secretsecret", alg=x', "secretsecret"),
    ],
)  # fmt: skip
def test_the_credentials_in_a_header_are_masked_also_when_they_come_alone(
    name: str, value: str, repeated: str
) -> None:
    assert body_of(f"<{repeated}>".encode(), {name: value}) == b"<***>"


@pytest.mark.parametrize("value", ["Basic !!!!", "Basic /////w==", "Basic"])
def test_credentials_that_cannot_be_read_do_no_harm(value: str) -> None:
    assert body_of(b"fine", {"Authorization": value}) == b"fine"


def test_so_many_parts_of_a_header_are_looked_for_and_all_of_it_at_once() -> None:
    cookies = [f"name{number}=secret{number:02}" for number in range(1000)]
    headers = {"Cookie": "; ".join(cookies)}
    assert body_of(b"<secret00> <secret49> <secret51>", headers) == b"<***> <***> <secret51>"
    assert body_of(headers["Cookie"].encode(), headers) == b"***"


def test_short_values_are_left_alone() -> None:
    assert body_of(b'{"ok": "1234567"}', {"X-Version": "1234567"}) == b'{"ok": "1234567"}'


def test_other_secrets_are_masked_too() -> None:
    assert body_of(b"whsec_abcdefgh!", {}, "whsec_abcdefgh") == b"***!"


def test_errors_are_masked_like_bodies() -> None:
    answer = Answer(
        error_class=ErrorClass.PROTOCOL, error=f"illegal header line: b'x: {SECRET}' \udc80"
    )
    left = without_secrets(answer, {"X-Custom": SECRET})
    assert left.error == "illegal header line: b'x: ***' \udc80"
    assert left.error_class is ErrorClass.PROTOCOL


@pytest.mark.parametrize("kept", [8, 12, len(SECRET) - 1])
def test_a_secret_that_the_end_of_a_cut_off_body_halves_is_masked(kept: int) -> None:
    answer = Answer(status_code=200, body=f"p&ss p&ss/'w {SECRET[:kept]}".encode(), truncated=True)
    assert without_secrets(answer, {"X-Custom": SECRET}).body == b"p&ss p&ss/'w ***"


def test_a_cut_off_body_that_only_begins_alike_is_left_alone() -> None:
    answer = Answer(status_code=200, body=f"{SECRET[:9]}!".encode(), truncated=True)
    assert without_secrets(answer, {"X-Custom": SECRET}) == answer


@pytest.mark.parametrize(
    "answer",
    [Answer(status_code=204), Answer(status_code=200, body=b"nothing of it"), Answer()],
)
def test_what_repeats_nothing_stays_as_it_is(answer: Answer) -> None:
    assert without_secrets(answer, {"X-Custom": SECRET}) == answer
    assert without_secrets(answer, {}) is answer


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"--port {KEY}: not a number", "--port rbk_ci_***: not a number"),
        ("'whsec_AAAA+/=='", "'whsec_***'"),
        ("postgresql://anna:p@ss/word@db/x", "postgresql://***@db/x"),
        ("see https://example.com/a b@c", "see https://example.com/a b@c"),
        ("nothing", "nothing"),
        ("x" * 300 + "://anna:pass@db", "x" * 300 + "://***@db"),
        ("x" * 300_000, "x" * 300_000),  # would take an hour if the time grew with its square
        ("x://" * 1_000 + " a@b", "x://" * 1_000 + " a@b"),
    ],
)
def test_secrets_of_a_known_form_are_masked_wherever_they_stand(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert masked_log(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Digest x=1, y=2\nnext", "Authorization: ***\nnext"),
        ("(b'authorization', b'Bearer abc')", "(b'authorization', b'***')"),
        ("{'Cookie': 'a=b; c=d'}", "{'Cookie': '***'}"),
        ("got Bearer abcdefgh.ijk here", "got Bearer *** here"),
    ],
)
def test_logs_show_nothing_of_headers_with_credentials(text: str, shown: str) -> None:
    assert masked_log(text) == shown
    assert masked(text) == text
