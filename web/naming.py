"""How names in Python are spelled in the API: camelCase, and units in full."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache


@cache
def camel(name: str) -> str:
    """``retry_policy`` → ``retryPolicy``; ``timeout_s`` → ``timeoutSeconds``."""
    if name.endswith("_s"):
        name = name[:-2] + "_seconds"
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def spelled(name: str) -> str:
    """An attribute's name in the API."""
    return "from" if name == "from_" else camel(name)


def pointer(path: Iterable[str | int]) -> str:
    """A JSON Pointer (RFC 6901) from its steps."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)
