"""From JSON and query strings to types and back; what is wrong is named field by field."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, TypeVar, get_args, get_origin

import attrs
import cattrs
from cattrs.cols import list_structure_factory
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from cattrs.v import format_exception as cattrs_text

from engine import (
    Dispatch,
    ErrorClass,
    Method,
    Status,
)
from engine.core.rules import rules_of
from engine.core.task import NOT_IN_BODIES
from engine.core.times import parse_rfc3339, rfc3339

from .naming import pointer, spelled

T = TypeVar("T")
_INTEGER = re.compile(r"-?[0-9]{1,19}")


class Invalid(ValueError):
    """Values that break rules: ``(pointer, what is wrong)`` for each."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{where or 'all of it'} {text}" for where, text in problems))


def _exactly(kind: type, wanted: str) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is kind or (kind is float and type(value) is int):
            return value
        raise ValueError(f"must be {wanted}")

    return structure


def _moment(value: Any, _: Any) -> datetime:
    if not isinstance(value, str):
        raise ValueError("must be text, a date and time such as 2026-01-02T03:04:05Z")  # noqa: TRY004
    return parse_rfc3339(value)


def _choice(value: Any, kind: Any) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"must be one of {', '.join(kind)}") from None


def _string_map(value: Any, _: Any) -> dict[str, str]:
    if isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
        return value
    raise ValueError("must be an object whose values are all text")


def _make_converter(*, from_text: bool) -> cattrs.Converter:
    """``from_text``: values come as text, from a query string."""
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    strict: list[tuple[type, str]] = [
        (str, "text"), (int, "an integer"), (float, "a number"), (bool, "true or false")
    ]  # fmt: skip
    for kind, wanted in strict:
        converter.register_structure_hook(
            kind, _parsed(kind, wanted) if from_text else _exactly(kind, wanted)
        )
    converter.register_structure_hook(datetime, _moment)
    converter.register_unstructure_hook(datetime, rfc3339)
    converter.register_structure_hook_func(lambda kind: kind == dict[str, str], _string_map)
    converter.register_structure_hook_factory(
        _is_list,
        lambda kind: _listed(converter, kind),
    )
    for choice in (Status, Dispatch, Method, ErrorClass):
        converter.register_structure_hook(choice, _choice)
    converter.register_structure_hook_factory(
        _has_rules,
        lambda kind: _ruled(converter, kind),
    )
    converter.register_structure_hook_factory(attrs.has, lambda cls: _structured(converter, cls))
    converter.register_unstructure_hook_factory(
        attrs.has,
        lambda cls: make_dict_unstructure_fn(cls, converter, **_spellings(cls)),
    )
    return converter


def _has_rules(kind: Any) -> bool:
    return get_origin(kind) is Annotated and bool(rules_of(kind))


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is list


def _spellings(cls: Any) -> dict[str, Any]:
    return {
        field.name: override(rename=spelled(field.name), omit=field.metadata.get(NOT_IN_BODIES))
        for field in attrs.fields(cls)
    }


def _parsed(kind: type, wanted: str) -> Callable[[Any, Any], Any]:
    words: dict[str, bool] = {"true": True, "1": True, "false": False, "0": False}

    def structure(value: str, _: Any) -> Any:
        if kind is int and not _INTEGER.fullmatch(value):  # int() would take 1_000 and ３ as well
            raise ValueError(f"must be {wanted}")
        try:
            return words[value.lower()] if kind is bool else kind(value)
        except (ValueError, KeyError):
            raise ValueError(f"must be {wanted}") from None

    return structure


def _ruled(converter: cattrs.Converter, kind: Any) -> Callable[[Any, Any], Any]:
    inner, rules = get_args(kind)[0], rules_of(kind)

    def structure(value: Any, _: Any) -> Any:
        result = converter.structure(value, inner)
        for rule in rules:
            if problem := rule.broken(result):
                raise ValueError(problem)
        return result

    return structure


def _listed(converter: cattrs.Converter, kind: Any) -> Callable[[Any, Any], Any]:
    structure = list_structure_factory(kind, converter)

    def checked(value: Any, kind: Any) -> Any:
        if not isinstance(value, list):  # texts and objects can be iterated over, too
            raise ValueError("must be a list")  # noqa: TRY004
        return structure(value, kind)

    return checked


def _structured(converter: cattrs.Converter, cls: type) -> Callable[[Any, Any], Any]:
    structure: Callable[[Any, Any], Any] = make_dict_structure_fn(cls, converter, **_spellings(cls))

    def checked(value: Any, kind: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError("must be an object")  # noqa: TRY004
        return structure(value, kind)

    return checked


BODY = _make_converter(from_text=False)
QUERY = _make_converter(from_text=True)


def structure(converter: cattrs.Converter, value: Any, kind: type[T]) -> T:
    """The value as this type; raises ``Invalid`` naming every field that is wrong."""
    try:
        return converter.structure(value, kind)
    except (cattrs.BaseValidationError, ValueError) as error:
        raise Invalid([(pointer(path), text) for path, text in _problems(error, ())]) from None


def _problems(error: BaseException, path: tuple[str | int, ...]) -> list[tuple[Any, str]]:
    """Every leaf of cattrs' tree of errors, with its path as the API spells it."""
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        return [((*path, key), "is not a known field") for key in sorted(error.extra_fields)]
    if isinstance(error, cattrs.ClassValidationError):
        noted, bare = error.group_exceptions()
        found = [p for e, note in noted for p in _problems(e, (*path, spelled(note.name)))]
    elif isinstance(error, cattrs.IterableValidationError):
        items, bare = error.group_exceptions()
        found = [p for e, note in items for p in _problems(e, (*path, note.index))]
    elif isinstance(error, KeyError):
        return [(path, "is missing")]
    else:
        return [(path, str(error) if isinstance(error, ValueError) else cattrs_text(error, None))]
    return found + [p for e in bare for p in _problems(e, path)]
