"""From JSON and query strings to types and back; what is wrong is named field by field."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from heapq import nsmallest
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

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

PROBLEMS_MAX = 100
"""Most problems that are named in one answer."""

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
    hints = get_type_hints(cls)
    return {
        field.name: override(
            rename=spelled(field.name),
            omit=field.metadata.get(NOT_IN_BODIES),
            unstruct_hook=_as_it_is if hints[field.name] is Any else None,
        )
        for field in attrs.fields(cls)
    }


def _as_it_is(value: Any) -> Any:
    """What may be anything is JSON already; cattrs would copy it node by node."""
    return value


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

    convert = converter.get_structure_hook(inner)

    def structure(value: Any, _: Any) -> Any:
        result = convert(value, inner)
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
        result: list[Any] = []
        for start in range(0, len(value), PROBLEMS_MAX):
            try:
                result += structure(value[start : start + PROBLEMS_MAX], kind)
            except cattrs.IterableValidationError as error:  # enough: there may be millions
                raise _InPartError(start, error) from None
        return result

    return checked


class _InPartError(ValueError):
    """What is wrong with a part of a list that begins at ``start``."""

    def __init__(self, start: int, error: cattrs.IterableValidationError) -> None:
        self.start = start
        self.error = error
        super().__init__(start)


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
    """The value as this type; raises ``Invalid`` naming the fields that are wrong."""
    try:
        return converter.structure(value, kind)
    except (cattrs.BaseValidationError, ValueError) as error:
        found = _problems(error, ())[:PROBLEMS_MAX]
        raise Invalid([(pointer(path), text) for path, text in found]) from None


def _problems(
    error: BaseException, path: tuple[str | int, ...], start: int = 0
) -> list[tuple[Any, str]]:
    """Every leaf of cattrs' tree of errors, with its path as the API spells it; ``start`` is the
    place of the first item of a part of a list."""
    # cattrs keeps an error in the frame that its traceback leads to, beside the whole document:
    # a cycle, which would stay until the collector comes.
    error.__traceback__ = error.__context__ = None
    if isinstance(error, _InPartError):
        return _problems(error.error, path, error.start)
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        unknown = nsmallest(PROBLEMS_MAX, error.extra_fields)
        return [((*path, key), "is not a known field") for key in unknown]
    if isinstance(error, cattrs.ClassValidationError):
        noted, bare = error.group_exceptions()
        found = [p for e, note in noted for p in _problems(e, (*path, spelled(note.name)))]
    elif isinstance(error, cattrs.IterableValidationError):
        items, bare = error.group_exceptions()
        found = [p for e, note in items for p in _problems(e, (*path, start + int(note.index)))]
    elif isinstance(error, KeyError):
        return [(path, "is missing")]
    else:
        return [(path, str(error) if isinstance(error, ValueError) else cattrs_text(error, None))]
    return found + [p for e in bare for p in _problems(e, path)]
