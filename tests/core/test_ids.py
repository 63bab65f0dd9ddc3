"""Ids are UUIDv7 and only grow."""

from __future__ import annotations

from itertools import pairwise
from uuid import RFC_4122, UUID

from hypothesis import given, strategies as st

from engine.core.ids import IdSequence

MS = 1_767_322_800_000
chances = st.integers(0, 2**62 - 1)


def test_an_id_is_a_uuid_of_version_7_with_the_time_in_front() -> None:
    task_id = IdSequence().next(MS, 0)
    value = UUID(task_id)
    assert (value.version, value.variant, len(task_id)) == (7, RFC_4122, 36)
    assert value.int >> 80 == MS


@given(st.lists(st.tuples(st.integers(MS, MS + 3), chances), min_size=2, max_size=50))
def test_ids_grow_also_within_a_millisecond_and_when_the_clock_steps_back(
    calls: list[tuple[int, int]],
) -> None:
    sequence = IdSequence()
    ids = [sequence.next(unix_ms, chance) for unix_ms, chance in calls]
    assert all(before < after for before, after in pairwise(ids))
    assert {(UUID(each).version, UUID(each).variant) for each in ids} == {(7, RFC_4122)}
    assert [UUID(each).int % 2**62 for each in ids] == [chance for _, chance in calls]


def test_more_ids_than_a_millisecond_holds_borrow_from_the_next() -> None:
    sequence = IdSequence()
    ids = [sequence.next(MS, 2**62 - 1) for _ in range(4097)]
    assert ids == sorted(set(ids))
    assert UUID(ids[4095]).int >> 80 == MS
    assert UUID(ids[4096]).int >> 80 == MS + 1
    assert sequence.next(MS + 1, 0) > ids[-1]
