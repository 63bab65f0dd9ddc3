"""The ``Prefer`` header (RFC 7240): whether and how long a client wants to wait."""

from __future__ import annotations

from .problems import bad_request


def wait_s(prefer: str | None, default_s: float, most_s: float) -> tuple[float, str | None]:
    """Seconds to wait, and what to say in ``Preference-Applied``. Raises a 400 for a bad wait."""
    for part in (prefer or "").split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "respond-async":
            return 0.0, "respond-async"
        if name.lower() == "wait":
            value = value.strip().strip('"')
            if not (value.isascii() and value.isdigit() and len(value) < 10):
                raise bad_request("Prefer: wait must be a whole number of seconds, such as wait=10")
            seconds = min(float(value), most_s)
            return seconds, f"wait={seconds:g}"
    return default_s, None
