"""What schemathesis is told about this API: where callbacks may go, and what its schema cannot say.

It is loaded into schemathesis' own process. Nothing it makes leaves the machine: every URL that the
server would call becomes one of ours. ``COUNTS`` names a file that gets how many requests were
answered with what.
"""

from __future__ import annotations

import atexit
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import schemathesis
from schemathesis import Case, HookContext
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.core.transport import Response
from schemathesis.openapi.checks import RejectedPositiveData

from engine.core.url_rules import broken_url

CALLBACK: Final = "CALLBACK_URL"
COUNTS: Final = "COUNTS_FILE"

PATHS: Final = (
    *("/good", "/slow?ms=5", "/broken", "/permanent", "/drop", "/redirect", "/flaky"),
    *("/status/204", "/status/410", "/retry-after", "/big?bytes=70000"),
)

VALID_BUT_REFUSED: Final = {
    # What JSON Schema cannot say of a document, or says otherwise than we mean it.
    r"cannot be given together with runAt": "a rule between two fields",
    r"page and size cannot be mixed with cursor and limit": "a rule between query parameters",
    r"must be an integer$": "1.0 is an integer to JSON Schema; we want it written as one",
    r"holds an integer beyond 64 bits": "the payload may be any JSON, but numbers have limits",
    r"holds a number too large for a double": "the same",
    r"is nested deeper than 64 levels": "the same, of brackets",
    r"holds the character NUL": "the same, of characters, which no store keeps",
    r"must not contain NUL": "the same",
    r"is set by the engine and cannot be overridden": "names of headers that are ours",
    r"names the same header twice": "names that differ in case only",
    # What is no matter of syntax.
    r"this Idempotency-Key was used with a different request body": "what came before matters",
    r"has version \d+, not \d+": "an ETag of the right form, and of another version",
    r"must be Failed or left out": "the filter of a list that has only these",
    r"the body changes nothing": "at least one field, whichever",
}
"""Answers to valid requests that may yet be 4xx: what they say, and why."""

_answered: Counter[str] = Counter()


@schemathesis.hook
def before_call(_context: HookContext, case: Case[Any], _kwargs: dict[str, Any]) -> None:
    """Lead callbacks to our receiver."""
    ours = os.environ[CALLBACK]
    meant_well = case.meta is None or case.meta.generation.mode.is_positive
    for part in _parts(case.body):
        url = part.get("callbackUrl")
        if isinstance(url, str) and (meant_well or broken_url(url) is None):
            part["callbackUrl"] = ours + PATHS[crc32(url.encode()) % len(PATHS)]
        if meant_well and part.get("runAt"):
            part.pop("delaySeconds", None)  # only one of them may be given: so tasks get far


def _parts(body: Any) -> Iterator[dict[str, Any]]:
    """The body, and the tasks of a batch."""
    if isinstance(body, dict):
        yield body
        tasks = body.get("tasks")
        if isinstance(tasks, list):
            yield from (task for task in tasks if isinstance(task, dict))


@schemathesis.hook
def after_call(_context: HookContext, _case: Case[Any], response: Response) -> None:
    """Count."""
    _answered[str(response.status_code)] += 1


@schemathesis.hook
def filter_failure(
    _context: HookContext, failure: Failure, _case: Case[Any], response: Response
) -> bool:
    """Whether it is one: a valid request may be refused for a reason that the schema cannot give,
    and headers that nobody knows are ignored, as HTTP has it (RFC 9110 §5.1)."""
    if isinstance(failure, AcceptedNegativeData):
        return "in header - object with unexpected properties" not in failure.message
    if not isinstance(failure, RejectedPositiveData):
        return True
    problem = json.loads(response.content)
    details = [each["detail"] for each in problem.get("errors", ())] or [problem["detail"]]
    return not all(map(_is_known, details))


def _is_known(detail: str) -> bool:
    return any(re.search(pattern, detail) for pattern in VALID_BUT_REFUSED)


@atexit.register
def _tell() -> None:
    if COUNTS in os.environ:
        Path(os.environ[COUNTS]).write_text(json.dumps(_answered), "utf-8")
