"""What may go wrong in one run: the seed chooses which faults are on, and how often they strike."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs
import trio

from .goals import Goals

CHANCES: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        # a connection, or a request on it
        "net.refused": (0.02, 0.5),
        "net.syn_lost": (0.02, 0.3),
        "net.dns": (0.02, 0.3),
        "net.dns_hangs": (0.01, 0.2),
        "net.shortage": (0.01, 0.2),  # no descriptor left for a socket
        "net.reset_before": (0.02, 0.3),  # the callee executes nothing
        "net.reset_after": (0.02, 0.3),  # … has executed it
        "net.reset_kept": (0.3, 0.9),  # a connection that was kept ends as it is used again
        "net.silent": (0.02, 0.2),  # executed, and never answered
        "net.drip": (0.02, 0.3),
        "net.endless": (0.02, 0.2),
        "net.oversize": (0.02, 0.2),
        "net.garbage": (0.02, 0.2),
        "net.too_many": (0.02, 0.3),  # 429 with Retry-After
        "net.broken": (0.05, 0.6),  # 5xx
        "net.refuses": (0.02, 0.2),  # for good: 4xx
        # a transaction, or a reading
        "store.busy": (0.005, 0.1),
        "store.full": (0.005, 0.1),
        "store.io_before": (0.005, 0.1),
        "store.io_after": (0.005, 0.1),  # the commit took effect, and failed
        "store.read": (0.005, 0.1),
        "store.latency": (0.01, 0.3),
        "store.stall": (0.001, 0.01),  # longer than a lease
        # the process ends around a commit, or as a callback goes out
        "crash.before_commit": (0.001, 0.01),
        "crash.after_commit": (0.001, 0.01),
        "crash.calling": (0.01, 0.1),
        "crash.poison": (0.02, 0.1),  # a task whose every callback kills the process
        # a client goes away in the middle of a request
        "client.leaves": (0.02, 0.3),
    }
)
"""Chances of a fault each time it could strike: the least and the greatest a seed chooses."""

PAUSES: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "process.crash": (0.05, 0.5),
        "process.stop": (0.05, 0.5),
        "process.pause": (0.05, 0.5),  # it is held, for longer than a lease
        "store.outage": (0.05, 0.5),  # every transaction fails for a while
        "clock.step": (0.05, 0.5),
    }
)
"""The mean pause between two of them, as a part of the run's length."""

KINDS: Final = (*CHANCES, *PAUSES)


@attrs.frozen
class Faults:
    """How often each kind strikes; kinds that are missing are off."""

    rates: Mapping[str, float]

    @classmethod
    def chosen(cls, seed: int) -> Faults:
        """Those of a seed: whole groups are off, and of the rest about half the kinds, so that no
        two seeds look alike and some faults have the stage to themselves."""
        rng = random.Random(f"{seed}:faults")
        groups = sorted({kind.partition(".")[0] for kind in KINDS})
        awake = {group for group in groups if rng.random() < 0.7}
        rates = {}
        for kind in KINDS:
            least, most = (CHANCES.get(kind) or PAUSES.get(kind)) or (0.0, 0.0)
            on, where = rng.random() < 0.5, rng.random()
            if on and kind.partition(".")[0] in awake:
                rates[kind] = least * (most / least) ** where
        return cls(MappingProxyType(rates))

    def without(self, *kinds: str) -> Faults:
        """The same with some kinds off: for finding out which of them a failure needs."""
        return Faults({kind: rate for kind, rate in self.rates.items() if kind not in kinds})


NONE: Final = Faults({})


class Luck:
    """Decides each time whether a fault strikes. Every kind has its own stream of chance, so that
    a new kind does not change what the old seeds do."""

    def __init__(self, seed: int, faults: Faults, goals: Goals, counts: Counter[str]) -> None:
        self._faults = faults
        self._goals = goals
        self._counts = counts
        self._streams = {kind: random.Random(f"{seed}:{kind}") for kind in KINDS}
        self.calmed = trio.Event()  # from then on nothing goes wrong any more

    def __repr__(self) -> str:
        return f"<Luck {'calm' if self.calm else sorted(self._faults.rates)}>"

    @property
    def calm(self) -> bool:
        """Whether nothing goes wrong any more."""
        return self.calmed.is_set()

    def strikes(self, kind: str, factor: float = 1.0) -> bool:
        """Whether this fault strikes now."""
        rate = self._faults.rates.get(kind, 0.0) * factor
        struck = rate > 0 and self._streams[kind].random() < rate and not self.calm
        if struck:
            self.struck(kind)
        return struck

    def struck(self, kind: str) -> None:
        """It did."""
        self._counts[f"fault {kind}"] += 1
        self._goals.reach(kind)

    def pause_s(self, kind: str, length_s: float) -> float | None:
        """How long until this fault strikes next; ``None`` if it is off."""
        rate = self._faults.rates.get(kind)
        return None if rate is None else self._streams[kind].expovariate(1 / (rate * length_s))

    def stream(self, kind: str) -> random.Random:
        """The kind's own chance, for how hard it strikes."""
        return self._streams[kind]
