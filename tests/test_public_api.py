"""What ``engine`` offers: sorted, complete, and each name said once."""

from __future__ import annotations

import inspect
import typing

import attrs
import pytest

import engine
from engine import Engine, EngineConfig, Ports, Stats, Watch, errors

_PORTS = {"Broker", "CallbackNet", "Clock", "Ids", "Rng", "StoreOpener"}
"""Named in signatures, but for people who write adapters: those import ``engine.ports``."""

_ANSWERS = {"AllFigures", "AttemptFigures", "EngineParts", "Latency"}
"""Seen as attributes only; nobody makes one."""


def test_the_names_are_sorted_and_said_once():
    assert engine.__all__ == sorted(set(engine.__all__))


def test_every_name_is_there():
    assert [name for name in engine.__all__ if not hasattr(engine, name)] == []


def test_everything_public_that_is_imported_is_offered():
    public = {
        name
        for name, value in vars(engine).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }
    assert public == set(engine.__all__)


def _named_in(hint: object) -> set[str]:
    """Our own classes in a type, also inside ``list[...]`` and ``X | None``."""
    inside = set().union(*(_named_in(part) for part in typing.get_args(hint)))
    if inspect.isclass(hint) and hint.__module__.startswith("engine"):
        inside.add(hint.__name__)
    return inside


@pytest.mark.parametrize("kind", [Engine, Watch])
def test_every_type_a_caller_meets_is_offered(kind):
    met: set[str] = set()
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        if not name.startswith("_"):
            for hint in typing.get_type_hints(method).values():
                met |= _named_in(hint)
    assert met - set(engine.__all__) - _PORTS - _ANSWERS == set()


@pytest.mark.parametrize("kind", [Stats, Ports, EngineConfig])
def test_every_type_in_a_record_is_offered(kind):
    met = set().union(*(_named_in(hint) for hint in typing.get_type_hints(kind).values()))
    assert met - set(engine.__all__) - _PORTS - _ANSWERS == set()


def test_every_error_is_in_the_tree_that_its_module_draws():
    assert errors.__doc__ is not None
    kinds = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, Exception)
    ]
    assert [kind.__name__ for kind in kinds if kind.__name__ not in errors.__doc__] == []
    assert all(issubclass(kind, errors.EngineError) for kind in kinds)


@pytest.mark.parametrize("field", attrs.fields(EngineConfig), ids=lambda field: field.name)
def test_every_setting_says_what_it_is(field):
    assert field.metadata["doc"]


@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="executors must be more than 0"):
        EngineConfig(executors=value)
