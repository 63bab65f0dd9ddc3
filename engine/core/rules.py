"""What a field must hold, said once: checked at the door and shown in the API's schema.

A field's rules stand in its annotation: ``name: Annotated[str, text(1, 200)]``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import attrs

from .url_rules import URL_MAX, broken_url

Path = tuple[str | int, ...]


@attrs.frozen(eq=False)
class Rule:
    """One rule: ``broken(value)`` says what is wrong or ``None``; ``schema`` is JSON Schema."""

    broken: Callable[[Any], str | None]
    schema: Mapping[str, Any]


def text(shortest: int, longest: int) -> Rule:
    """Text of so many characters, without NUL or lone surrogates (no store can keep those)."""

    def broken(value: str) -> str | None:
        if not shortest <= len(value) <= longest:
            return f"must have {shortest} to {longest} characters, not {len(value)}"
        if "\x00" in value:
            return "must not contain NUL"
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            return "must not contain lone surrogates"
        return None

    return Rule(broken, {"minLength": shortest, "maxLength": longest})


def between(least: float, most: float) -> Rule:
    """A number from ``least`` to ``most``, both included."""

    def broken(value: float) -> str | None:
        return (
            None if least <= value <= most else f"must be from {least:g} to {most:g}, not {value}"
        )

    return Rule(broken, {"minimum": least, "maximum": most})


def string_map(most: int, longest: int) -> Rule:
    """A map of at most ``most`` entries; keys to 100, values to ``longest`` characters."""
    key_rule, value_rule = text(1, 100), text(0, longest)

    def broken(value: Mapping[str, str]) -> str | None:
        if len(value) > most:
            return f"must have at most {most} entries, not {len(value)}"
        for key, item in value.items():
            if problem := key_rule.broken(key) or value_rule.broken(item):
                return f"{key[:100]!r} {problem}"
        return None

    return Rule(
        broken,
        {
            "maxProperties": most,
            "propertyNames": {"minLength": 1, "maxLength": 100},
            "additionalProperties": {"type": "string", "maxLength": longest},
        },
    )


def items(fewest: int, most: int | None = None) -> Rule:
    """A list of so many items."""

    def broken(value: list[Any]) -> str | None:
        if len(value) < fewest:
            return f"must have at least {fewest} items, not {len(value)}"
        if most is not None and len(value) > most:
            return f"must have at most {most} items, not {len(value)}"
        return None

    return Rule(broken, {"minItems": fewest, **({} if most is None else {"maxItems": most})})


# RFC 9110 §5.6.2 token; a value is visible ASCII with inner blanks (§5.5), so no CR, LF or NUL.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_HEADER_VALUE = re.compile(r"([!-~]([ \t!-~]*[!-~])?)?")
_OWN_HEADERS = frozenset(
    [
        "host",
        "content-length",
        "connection",
        "transfer-encoding",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "keep-alive",
        "content-type",
        "user-agent",
        "accept-encoding",
        "idempotency-key",
        "traceparent",
        "tracestate",
    ]
)
_OWN_PREFIXES = ("webhook-", "x-task-", "proxy-")


def _broken_header(name: str, value: str) -> str | None:
    lower = name.lower()
    if not _TOKEN.fullmatch(name):
        # Not shown: who writes a whole header there shows us its value, too.
        return 'has a name that is not a header name: write {"X-Name": "value"}'
    if lower in _OWN_HEADERS or lower.startswith(_OWN_PREFIXES):
        return f"{name!r} is set by the engine and cannot be overridden"
    if not _HEADER_VALUE.fullmatch(value) or len(value) > 4096:
        return f"the value of {name!r} must be visible ASCII, at most 4096 characters"
    return None


def _broken_headers(value: Mapping[str, str]) -> str | None:
    if len(value) > 20:
        return f"must have at most 20 headers, not {len(value)}"
    if len({name.lower() for name in value}) < len(value):
        return "names the same header twice"
    return next((problem for item in value.items() if (problem := _broken_header(*item))), None)


HEADERS = Rule(
    _broken_headers,
    {
        "maxProperties": 20,
        "propertyNames": {"pattern": f"^{_TOKEN.pattern}$"},
        "additionalProperties": {
            "type": "string",
            "maxLength": 4096,
            "pattern": f"^{_HEADER_VALUE.pattern}$",
        },
    },
)

HTTP_URL = Rule(
    broken_url,
    {"format": "uri", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://", "minLength": 1, "maxLength": URL_MAX},
)


def rules_of(annotation: Any) -> tuple[Rule, ...]:
    """The rules an annotation carries, also behind ``| None``."""
    if get_origin(annotation) is Annotated:
        return tuple(extra for extra in get_args(annotation)[1:] if isinstance(extra, Rule))
    return tuple(rule for part in get_args(annotation) for rule in rules_of(part))


@cache
def _ruled_fields(cls: Any) -> tuple[tuple[str, Any, tuple[Rule, ...]], ...]:
    """Name, default and rules of each field that may break one. One without rules is a record that
    has its own."""
    hints = get_type_hints(cls, include_extras=True)
    return tuple(
        (field.name, field.default, rules)
        for field in attrs.fields(cls)
        if (rules := rules_of(hints[field.name])) or _is_record(hints[field.name])
    )


def _is_record(annotation: Any) -> bool:
    return any(attrs.has(part) for part in (annotation, *get_args(annotation)))


def problems_of(instance: Any) -> Iterator[tuple[Path, str]]:
    """Every broken rule of an attrs instance and of the attrs instances in it. Defaults are taken
    to break none."""
    cls: Any = type(instance)
    for name, default, rules in _ruled_fields(cls):
        value = getattr(instance, name)
        if value is default or value is None:
            continue
        for rule in rules:
            if problem := rule.broken(value):
                yield (name,), problem
        if not rules:
            yield from (((name, *path), detail) for path, detail in problems_of(value))
