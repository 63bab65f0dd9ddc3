"""Ringback with a SQLite setting that promises less: ``python -m tests.murder.trace_server serve …``.

With ``synchronous=NORMAL`` a commit survives the end of the process, but not of the machine. It is
what the trace has to be able to tell from the real thing.
"""

from __future__ import annotations

from engine.adapters.storage import sqlite_file
from web.cli import main

if __name__ == "__main__":
    sqlite_file.SETTINGS["synchronous"] = 1
    main(prog_name="ringback")
