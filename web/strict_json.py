"""JSON as it comes in: everything that would hurt later is refused at the door.

RFC 8259 leaves open what these mean, and parsers differ: duplicate keys, NaN and infinities, numbers
beyond 64 bits, lone surrogates, NUL, endless nesting. Each of them is an error here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, Final

_INT_LIMIT = 2**63
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)


class BadJson(ValueError):
    """The text is not JSON that can be accepted; the message says why."""


def loads(body: bytes, depth_max: int) -> Any:
    """The value; raises ``BadJson``."""
    _check_depth(body, depth_max)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadJson(f"is not UTF-8 at byte {error.start}") from None
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BadJson(
            f"is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from None
    if "\\u" in text:  # only an escape can bring these in
        _walk_texts(value, _check_text)
    return value


def _check_depth(body: bytes, most: int) -> None:
    """Count open brackets before parsing: a deep document exhausts the parser's stack."""
    if body.count(b"[") + body.count(b"{") <= most:
        return
    depth = 0
    for char in _STRINGS.sub(b"", body):
        if char in b"[{":
            depth += 1
            if depth > most:
                raise BadJson(f"is nested deeper than {most} levels")
        elif char in b"]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise BadJson(f"has the key {twice[:100]!r} twice in one object")
    return value


def _constant(name: str) -> Any:
    raise BadJson(f"holds {name}, which is not a JSON number")


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -_INT_LIMIT <= (value := int(digits)) < _INT_LIMIT:
        raise BadJson("holds an integer beyond 64 bits")
    return value


def _number(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise BadJson("holds a number too large for a double")
    return value


_DECODER: Final = json.JSONDecoder(  # json.loads would make one each time
    object_pairs_hook=_object,
    parse_constant=_constant,
    parse_int=_integer,
    parse_float=_number,
)


def _walk_texts(value: Any, check: Callable[[str], None]) -> None:
    if isinstance(value, str):
        check(value)
    elif isinstance(value, list):
        for item in value:
            _walk_texts(item, check)
    elif isinstance(value, dict):
        for key, item in value.items():
            check(key)
            _walk_texts(item, check)


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise BadJson("holds the character NUL")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise BadJson("holds a lone surrogate")
