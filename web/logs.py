"""The server's log: one line for each thing that happened, and nothing secret in it."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Iterable
from types import TracebackType
from typing import Final

from engine.core.redact import MASK, masked_log

LEVELS: Final = ("debug", "info", "warning", "error")

_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_STEERING: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_NOISY: Final = ("alembic", "httpcore", "httpx", "sqlalchemy")
"""Their debug output holds headers and values of callbacks; no level of ours switches it on."""


class LogFormatter(logging.Formatter):
    """Masks secrets, and keeps clients from forging lines: in a message control characters are
    escaped, and a traceback's lines are indented.

    It is a formatter because a filter sees no traceback: that becomes text only here.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__(_FORMAT)
        self._secrets = tuple(secrets)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = _STEERING.sub(_escaped, self.masked(record.message))
        return super().formatMessage(record)

    def formatException(self, ei: ExceptionInfo) -> str:  # noqa: N802 - logging's name
        return self.indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        return self.indented(stack_info)

    def masked(self, text: str) -> str:
        """The text without secrets, those by their form and those we have been told."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return masked_log(text)

    def indented(self, text: str) -> str:
        """Lines that cannot be taken for lines of the log."""
        lines = re.split(r"\r\n|[\n\r\v\f\x85\u2028\u2029]", self.masked(text))
        return "\n".join("    " + _STEERING.sub(_escaped, line) for line in lines)


ExceptionInfo = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


def _escaped(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]


def configure(level: str, secrets: Iterable[str] = ()) -> None:
    """Log to standard error, also what ends the process. ``secrets`` are known ones."""
    formatter = LogFormatter(secrets)
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)

    def tell(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        told = "".join(traceback.format_exception(kind, error, where))
        print(formatter.masked(told), file=sys.stderr)  # noqa: T201 - its last words

    sys.excepthook = tell
