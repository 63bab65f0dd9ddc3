"""Secrets are taken out of texts here, before those are kept or shown.

Two kinds are known: those of a task, which are the values of its headers, whatever they look like;
and those that can be told by their form, wherever they stand.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import quote, quote_plus

import attrs

from .outcome import Answer

MASK: Final = "***"
LENGTH_MIN: Final = 8  # to mask shorter values would make answers unreadable

_PIECES: Final = re.compile(r"[\s;,]+")
_PIECES_MAX: Final = 50  # of a header, as many as the cookies of one site; looking takes time
_REMEMBERED: Final = 64  # secrets, and sets of headers, whose forms are kept ready
_FEW: Final = 1_000  # characters of a set of headers that are worth it: forms take much more room


# -- secrets of a task -----------------------------------------------------------------------


def without_secrets(
    answer: Answer, headers: Mapping[str, str], others: Collection[str] = ()
) -> Answer:
    """The answer with the values of the request's headers masked, and ``others`` too: a callee
    may repeat what it got. Plain, percent-encoded, in JSON, HTML, hexadecimal and base64."""
    if not (answer.body or answer.error) or not (headers or others):
        return answer
    values = tuple(headers.values())
    few = sum(map(len, values)) <= _FEW
    forms = (_forms_kept if few else _forms_in)(values, tuple(others))
    body, error = answer.body, (answer.error or "").encode("utf-8", "surrogatepass")
    if answer.truncated:
        body = _without_cut_off(body, forms)
    found = [form for form in forms if form in body or form in error]
    if not found and body is answer.body:
        return answer
    for form in found:
        body = body.replace(form, MASK.encode())
        error = error.replace(form, MASK.encode())
    words = error.decode("utf-8", "surrogatepass") or answer.error
    return attrs.evolve(answer, body=body, error=words)


def _forms_in(values: tuple[str, ...], others: tuple[str, ...]) -> tuple[bytes, ...]:
    """How what is secret in these headers may be spelled, and ``others``. The longest first: what
    is in it goes with it."""
    secrets = {secret for value in values for secret in _parts(value)} | set(others)
    forms = [form for one in secrets if len(one) >= LENGTH_MIN for form in _forms(one)]
    return tuple(sorted(forms, key=len, reverse=True))


_forms_kept = lru_cache(_REMEMBERED)(_forms_in)


def _parts(value: str) -> Iterator[str]:
    """A header's value, and what it is made of: the credentials after a scheme, a password in
    them, the values of cookies. A callee may repeat these alone."""
    yield value
    for piece in _PIECES.split(value, _PIECES_MAX):
        yield piece
        yield piece.partition("=")[2].strip('"')
    scheme, _, credentials = value.partition(" ")
    if scheme.lower() == "basic":
        try:
            user_and_password = base64.b64decode(credentials).decode()
        except (binascii.Error, UnicodeDecodeError):
            return
        yield user_and_password
        yield user_and_password.partition(":")[2]


@lru_cache(_REMEMBERED)
def _forms(secret: str) -> frozenset[bytes]:
    """How the secret may be spelled in an answer."""
    raw = secret.encode()
    in_json = json.dumps(secret, ensure_ascii=False)[1:-1]
    texts = {
        secret,
        in_json,
        in_json.replace("/", "\\/"),
        in_json.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),
        html.escape(secret),
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        raw.hex(),
        raw.hex().upper(),
        *_in_base64(raw),
    }
    return frozenset(text.encode() for text in texts)


def _in_base64(raw: bytes) -> Iterator[str]:
    """What shows of it in the base64 of any text it stands in: three letters become four
    characters, and it may begin with each of the three."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw).decode().rstrip("=")
        whole = encoded[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
        yield whole
        yield whole.replace("+", "-").replace("/", "_")


def _without_cut_off(body: bytes, forms: Iterable[bytes]) -> bytes:
    """The body without a secret that its end cuts in two."""
    for form in forms:
        start = max(0, len(body) - len(form))
        while (start := body.find(form[:LENGTH_MIN], start)) >= 0:
            if form.startswith(body[start:]):
                return body[:start] + MASK.encode()
            start += 1
    return body


# -- secrets of a known form -----------------------------------------------------------------

_KNOWN: Final = (  # the limits keep the time in proportion to the text
    (re.compile(r"(rbk_[a-z0-9-]{1,32}_)[A-Za-z0-9_-]+"), rf"\1{MASK}"),
    (re.compile(r"(whsec_)[A-Za-z0-9+/=_-]+"), rf"\1{MASK}"),
    (re.compile(r"([a-z][a-z0-9+.-]{0,30}://)[^\s'\"<>]{0,2000}@", re.IGNORECASE), rf"\1{MASK}@"),
)
_CREDENTIALS: Final = (
    (
        re.compile(
            r"((?:authorization|cookie)['\"]?\s*[:=,]\s*b?['\"]?)[^'\"\r\n]+", re.IGNORECASE
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"\b((?:bearer|basic)\s+)[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE), rf"\1{MASK}"),
)


def masked(text: str) -> str:
    """The text without API keys, signing secrets, and users and passwords in URLs."""
    for pattern, replacement in _KNOWN:
        text = pattern.sub(replacement, text)
    return text


def masked_log(text: str) -> str:
    """As ``masked``; also without what headers with credentials may say. For logs: ordinary
    sentences about such headers suffer."""
    text = masked(text)
    for pattern, replacement in _CREDENTIALS:
        text = pattern.sub(replacement, text)
    return text
