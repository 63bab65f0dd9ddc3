"""The interpreter's own settings, where the process is ours: what suits a server.

Measured under single creates (``python -m benchmarks --only layers``): with CPython's defaults the
collector of cycles takes a fifth of all CPU, because every few requests it walks through objects
that live as long as the server.
"""

from __future__ import annotations

import gc
from typing import Final

# New containers before the young ones are walked through (CPython: 700). What is large, such as a
# body, must not be part of a cycle, else a thousand of them may wait for the collector.
_YOUNG_OBJECTS: Final = 10_000


def settle() -> None:
    """Call when everything that lives as long as the process has been made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
