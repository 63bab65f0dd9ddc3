"""The ``Prefer`` header (RFC 7240): whether and how long a client wants to wait."""

from __future__ import annotations

from .problems import bad_request


def wait_s(prefer: str | None, default_s: float, most_s: float) -> tuple[float, str | None]:
    """Seconds to wait, and what to say in ``Preference-Applied``. Raises a 400 for a bad wait.

    ``respond-async, wait=10`` means: asynchronously if it takes longer than that (§4.3).
    """
    given: dict[str, str] = {}
    for part in (prefer or "").split(","):
        name, _, value = part.partition(";")[0].partition("=")
        given.setdefault(name.strip().lower(), value.strip().strip('"'))  # the first one counts
    wait = given.get("wait")
    if wait is not None:
        if not (wait.isascii() and wait.isdigit() and len(wait) < 10):
            raise bad_request("Prefer: wait must be a whole number of seconds, such as wait=10")
        seconds = min(float(wait), most_s)
        return seconds, f"wait={seconds:g}"
    if "respond-async" in given:
        return 0.0, "respond-async"
    return default_s, None
