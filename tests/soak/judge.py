"""Which bars a soak has held."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median
from typing import Final

from tests.bars import Seen
from tests.soak.load import Told
from tests.soak.run import Report
from tests.soak.samples import Sample, after, lag_percentile
from tests.soak.slope import Slope, slope

GROWTH_MIB_H: Final = 1.0
DESCRIPTORS: Final = 5  # more at the end is still flat
TOLD_FROM_S: Final = 1800.0
"""Over a shorter time even 1 MiB/h is less than half a MiB, and memory grows in steps of that size:
it may well stay exactly as it is, and look certain."""
LOADED: Final = 0.95  # of the creates that were due: with fewer it was another load
WAL_MIB: Final = 64.0
LAG_MS: Final = 50.0
BARS: Final = ("soak: tasks", "soak: memory", "soak: descriptors", "soak: WAL", "soak: event loop")
_ENDS: Final = frozenset({"Completed", "Failed", "Cancelled", "404"})  # 404: not kept any more


def judge(report: Report, command: str) -> list[Seen]:
    """One line for each bar, with the load that there was. Creates that were refused or put off make
    it less than was due; none of the bars is held then."""
    settings = report.settings
    rate = report.told.created / settings.seconds
    tried = f"{in_words(settings.seconds)} at {rate:,.1f} tasks/s ({report.rate:,.1f}/s were due"
    if report.capacity:
        tried += f"; {rate / report.capacity:.0%} of the capacity of {report.capacity:,.0f}/s"
    tried += ")"
    loaded = rate >= LOADED * report.rate
    short = "" if loaded else f"; less than {LOADED:.0%} of the load that was due"
    warm = after(report.samples, settings.warm_s)
    found = (
        tasks(report.told),
        memory(warm),
        descriptors(warm),
        wal(report.samples),
        event_loop(warm),
    )
    return [
        Seen(bar=bar, tried=tried, seen=seen + short, held=held and loaded, command=command)
        for bar, (seen, held) in zip(BARS, found, strict=True)
    ]


def tasks(told: Told) -> tuple[str, bool]:
    """Every accepted task came to its end, once, and was called as often as it had to be."""
    unanswered = told.refused.get("create cut off", 0)  # these may have been accepted
    wrong = {
        "lost": told.lost,
        "unexplained duplicates": told.duplicates,
        "called too early": told.early,
        "ended twice": told.ended_twice,
        "ended as they must not": sum(told.wrong.values()),
        "called or ended unasked": max(0, told.strangers - unanswered),
        "ended unheard": told.unheard,
        "without an end when asked": sum(n for s, n in told.asked.items() if s not in _ENDS),
    }
    seen = f"{told.created:,} accepted, {told.calls:,} calls, {wrong['lost']} lost, "
    seen += f"{wrong['unexplained duplicates']} unexplained duplicates"
    others = [f"{count} {what}" for what, count in list(wrong.items())[2:] if count]
    others += [f"{n:,} answered {what}" for what, n in sorted(told.refused.items())]
    if told.held_back_s >= 1:
        others.append(f"creates put off for {told.held_back_s:.0f} s, the server being behind")
    done = told.created > 0 and told.ended == told.created
    return ", ".join([seen, *others]), done and not any(wrong.values())


def memory(warm: Sequence[Sample]) -> tuple[str, bool]:
    """It does not grow. Held only if all that the slope may be, at 95 %, is below the bar: a slope that
    is itself just below it would be above it as often as not. What cannot be told is not held."""
    found = slope([(sample.at_s, sample.rss_mib) for sample in warm])
    if found is None:
        return "not told: too few samples after the warm-up", False
    between = f"95 %: {found.low:+.2f} to {found.high:+.2f}"
    seen = f"{found.an_hour:+.2f} MiB/h ({between}), {warm[-1].rss_mib:.0f} MiB at the end"
    meaning, held = _meaning(found, warm[-1].at_s - warm[0].at_s)
    return f"{seen}; {meaning}", held


def _meaning(found: Slope, seconds: float) -> tuple[str, bool]:
    if found.low > GROWTH_MIB_H:
        return "more than 1 MiB/h", False
    if found.high < GROWTH_MIB_H and seconds >= TOLD_FROM_S:
        return "less than 1 MiB/h", True
    return "not told: too short a run to tell it from 1 MiB/h", False


def descriptors(warm: Sequence[Sample]) -> tuple[str, bool]:
    """No more at the end than at the beginning, but for those of connections that are still held.
    A loop that is far too late has not taken all of those in yet, which makes it fewer."""
    if len(warm) < 4:
        return "too few samples after the warm-up", False
    own = [sample.own_descriptors for sample in warm]
    quarter = len(own) // 4
    first, last = median(own[:quarter]), median(own[-quarter:])
    most = max(sample.descriptors for sample in warm)
    seen = f"{first:g} at first, {last:g} in the end, beside connections; at most {most} with them"
    return seen, last - first <= DESCRIPTORS


def wal(samples: Sequence[Sample]) -> tuple[str, bool]:
    """It is cut back in time; the warm-up counts too."""
    most = max((sample.wal_mib for sample in samples), default=0.0)
    return f"at most {most:.1f} MiB", 0 < most < WAL_MIB


def event_loop(warm: Sequence[Sample]) -> tuple[str, bool]:
    """It is seldom late. Other programs on the machine make it late as well, and that is told."""
    p99 = lag_percentile([sample.lags for sample in warm], 99)
    if p99 is None:
        return "nothing was measured", False
    worst = max(sample.lag_p99_ms or 0.0 for sample in warm)
    waited, busy = fmean(sample.waited for sample in warm), fmean(s.machine_load for s in warm)
    seen = (
        f"late by {p99:.0f} ms at p99, {worst:.0f} ms in the worst sample; it was ready and got no "
    )
    seen += f"processor for {waited:.0%} of the time (load of the machine: {busy:.1f})"
    return seen, p99 < LAG_MS


def in_words(seconds: float) -> str:
    """How long it is."""
    return f"{seconds / 3600:.3g} h" if seconds >= 180 else f"{seconds:g} s"
