"""From what was noted to what it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from benchmarks.driver.plan import Result
from benchmarks.driver.summary import latency
from benchmarks.running import Usage

if TYPE_CHECKING:
    from benchmarks.driver.load import Load

_MIDDLE: Final = (0.2, 0.8)  # of the callbacks: neither ramp-up nor ramp-down


def result_of(
    load: Load,
    *,
    warm: Load,
    states: Mapping[str, int],
    stalled: str | None,
    cpu_s: float,
    usage: Usage | None,
) -> Result:
    """``warm`` is the load of the warm-up: calls for its tasks that come now are duplicates."""
    books, manual = load.books, load.plan.dispatch == "manual"
    late = books.arrived.keys() & warm.books.began.keys()
    times = books.times()
    ended = load.created if manual else max([load.created, *times[-1:]])
    seconds = ended - load.began
    done = len(books.began) if manual else len(times)
    return Result(
        accepted=len(books.began),
        refused=dict(warm.refused + load.refused),
        unanswered=warm.unanswered + load.unanswered,
        lost=warm.lost + load.lost,
        duplicates=warm.books.again.total() + books.again.total() + len(late),
        unknown=warm.books.unknown + books.unknown - len(late),
        cut_off=load.receiver.cut_off,
        states=dict(states),
        seconds=seconds,
        rate=done / seconds if done else None,
        steady_rate=_steady_rate(times),
        create_rate=len(books.began) / (load.created - load.began) if books.began else None,
        create=latency(load.latencies),
        end_to_end=latency(books.end_to_end()),
        peak_in_flight=load.receiver.peak,
        in_flight=latency(load.in_flight, scale=1),
        held=latency(load.receiver.held),
        behind=latency(load.creates.behind),
        timeline=_timeline(times, load.began),
        readings=[reader.reading() for reader in load.readers],
        stalled=stalled,
        driver_cpu_s=cpu_s,
        usage=usage,
    )


def _steady_rate(times: Sequence[float]) -> float | None:
    """Callbacks a second in the middle of the run; None if there was no middle."""
    first, last = (int(len(times) * part) for part in _MIDDLE)
    if last - first < 2 or times[last] <= times[first]:
        return None
    return (last - first) / (times[last] - times[first])


def _timeline(times: Sequence[float], began: float) -> list[int]:
    counts = [0] * (int(times[-1] - began) + 1 if times else 0)
    for at in times:
        counts[int(at - began)] += 1
    return counts
