"""Ringback's engine: tasks that are called back over HTTP, durably, from any Trio program.

async with open_engine(database="sqlite:///ringback.db") as engine:
    await engine.submit([TaskSpec(name="hello", callback_url="http://127.0.0.1:9000/")])
"""

from __future__ import annotations

from .actors.feed import EventBatch, EventFilter
from .actors.watch import Watch
from .config import EngineConfig
from .core.commands import Created, IdempotencyKey, Receipt
from .core.explain import Explanation
from .core.queries import Kept, TaskQuery
from .core.task import (
    Attempt,
    CallbackResult,
    Dispatch,
    ErrorClass,
    Event,
    Method,
    RetryPolicy,
    Status,
    Task,
    TaskId,
    TaskSpec,
)
from .runtime import Ports, open_engine, system_ports
from .secret import Secret
from .service import Engine, Stats

__all__ = [
    "Attempt",
    "CallbackResult",
    "Created",
    "Dispatch",
    "Engine",
    "EngineConfig",
    "ErrorClass",
    "Event",
    "EventBatch",
    "EventFilter",
    "Explanation",
    "IdempotencyKey",
    "Kept",
    "Method",
    "Ports",
    "Receipt",
    "RetryPolicy",
    "Secret",
    "Stats",
    "Status",
    "Task",
    "TaskId",
    "TaskQuery",
    "TaskSpec",
    "Watch",
    "open_engine",
    "system_ports",
]
