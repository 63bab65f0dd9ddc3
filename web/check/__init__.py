"""``ringback check-target``: is this receiver fit to be called back?

What is sent stands in ``probes`` as a table, what a receiver's answer means in ``findings``; both
are pure. ``run`` sends, and ``report`` prints.
"""

from __future__ import annotations
