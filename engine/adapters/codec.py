"""Records as JSON text, for stores. Compact, not escaped, and only what JSON can say: no NaN."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from cattrs.gen import make_dict_unstructure_fn, override
from cattrs.preconf.json import JsonConverter, make_converter

from engine.core.commands import Receipt
from engine.core.task import CallbackResult, TaskSpec
from engine.errors import StoreRejected

T = TypeVar("T")

COLUMNS = ("name", "priority", "partition_key")
"""Fields of a spec that stores keep beside the text, because they search for them."""


def _as_it_is(value: Any) -> Any:
    return value


def _make_converter() -> JsonConverter:
    converter = make_converter(detailed_validation=False)
    searched = {name: override(omit=True) for name in COLUMNS}
    payload = override(unstruct_hook=_as_it_is)  # JSON already: no need to walk through it
    converter.register_unstructure_hook(
        TaskSpec,
        make_dict_unstructure_fn(
            TaskSpec,
            converter,
            _cattrs_use_linecache=True,
            **{**searched, "payload": payload},  # type: ignore[arg-type]  # one field each
        ),
    )
    return converter


_CONVERTER = _make_converter()
_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_DECODE = json.JSONDecoder().decode
_spec_fields: Callable[[TaskSpec], dict[str, Any]] = _CONVERTER.get_unstructure_hook(TaskSpec)
_spec_from = _CONVERTER.get_structure_hook(TaskSpec)
_result_fields: Callable[[CallbackResult], dict[str, Any]] = _CONVERTER.get_unstructure_hook(
    CallbackResult
)
_result_from = _CONVERTER.get_structure_hook(CallbackResult)


def _text(value: Any) -> str:
    try:
        return _ENCODE(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreRejected(f"this cannot be written as JSON: {error}") from error


def encode_spec(spec: TaskSpec) -> str:
    """Everything but ``COLUMNS``. Raises ``StoreRejected`` for what JSON cannot say."""
    return _text(_spec_fields(spec))


def decode_spec(text: str, name: str, priority: int, partition_key: str | None) -> TaskSpec:
    """The spec of a text and its ``COLUMNS``."""
    fields = _DECODE(text)
    fields["name"], fields["priority"], fields["partition_key"] = name, priority, partition_key
    spec: TaskSpec = _spec_from(fields, TaskSpec)
    return spec


def encode_result(result: CallbackResult | None) -> str | None:
    """Raises ``StoreRejected`` for what JSON cannot say."""
    return None if result is None else _text(_result_fields(result))


def decode_result(text: str | None) -> CallbackResult | None:
    """The opposite of ``encode_result``."""
    if text is None:
        return None
    result: CallbackResult = _result_from(_DECODE(text), CallbackResult)
    return result


def encode_receipts(receipts: tuple[Receipt, ...]) -> str:
    """Raises ``StoreRejected`` for what JSON cannot say."""
    return _text(_CONVERTER.unstructure(receipts))


def decode_receipts(text: str) -> tuple[Receipt, ...]:
    """The opposite of ``encode_receipts``."""
    return _CONVERTER.structure(_DECODE(text), tuple[Receipt, ...])
