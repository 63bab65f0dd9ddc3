"""`make bench`: what Ringback does per second, measured from outside over loopback.

The server and the callback receiver run in processes of their own; this one only asks and counts.
A figure is measured or it is not printed, and losses and duplicates stand beside every throughput.
"""

from __future__ import annotations
