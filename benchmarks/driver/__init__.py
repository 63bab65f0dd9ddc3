"""The load process: ``python -m benchmarks.driver`` reads a plan, loads a stack, writes what it saw.

It creates the tasks, is called back for them, and keeps the books, all on one clock. It shares the
machine with what it measures, so it is one thread around one ``epoll``: requests are encoded before
the clock starts, and messages are cut out of the bytes by hand. What it costs itself is said beside
every figure.
"""

from __future__ import annotations
