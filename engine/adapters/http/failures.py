"""What went wrong, as an ``Answer``. Texts say what helps and nothing that may be secret: no header
value, no path or query, no user name."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Iterable, Iterator

import trio

from engine.core.outcome import Answer
from engine.core.task import ErrorClass

_TEXT_MAX = 300  # characters kept of an error's text
_SHORTAGES = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)


class CallFailed(Exception):
    """The attempt has an outcome, and it is not an answer."""

    def __init__(self, error_class: ErrorClass, text: str) -> None:
        super().__init__(text)
        self.error_class = error_class


def failure(error: Exception) -> Answer:
    """The outcome of a call that ended with this error."""
    causes = list(_causes(error))
    known = next((cause for cause in causes if isinstance(cause, CallFailed)), None)
    if known is not None:
        return _answer(known.error_class, str(known))
    detail = _detail(causes)
    if is_shortage(error):
        return _answer(ErrorClass.SHORTAGE, f"no room for a connection{detail}")
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return _answer(ErrorClass.TLS, f"TLS failed{detail}")
    if any(isinstance(cause, OSError | trio.BrokenResourceError) for cause in causes):
        return _answer(ErrorClass.DISCONNECTED, f"the connection was cut off{detail}")
    return _answer(ErrorClass.CRASHED, f"{type(error).__name__}: {error}")


def refused(error: OSError) -> CallFailed:
    """No connection to any address came about."""
    return CallFailed(ErrorClass.REFUSED, f"the connection could not be made{_detail([error])}")


def is_shortage(error: BaseException) -> bool:
    """Whether we ran out of something: another address or another attempt would not help."""
    return any(isinstance(cause, OSError) and cause.errno in _SHORTAGES for cause in _causes(error))


def _answer(error_class: ErrorClass, text: str) -> Answer:
    return Answer(error_class=error_class, error=text[:_TEXT_MAX])


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all behind it."""
    yield error
    behind = [error.__cause__]
    if isinstance(error, BaseExceptionGroup):
        behind += error.exceptions
    for cause in behind:
        if cause is not None:
            yield from _causes(cause)


def _detail(causes: Iterable[BaseException]) -> str:
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f": {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            reason = getattr(cause, "reason", None) or "unknown reason"
            return f": {reason.replace('_', ' ').lower()}"
        if isinstance(cause, OSError) and cause.strerror:
            return f": {cause.strerror}"
    return ""
