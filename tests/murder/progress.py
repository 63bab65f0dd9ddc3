"""How a long run tells where it is: plain lines on standard error."""

from __future__ import annotations

import sys


def tell(line: str) -> None:
    """One line, at once; none if there is nothing to say."""
    if line:
        sys.stderr.write(f"  {line}\n")
        sys.stderr.flush()
