"""The source of chance: numbers in their ranges, and no two alike."""

from __future__ import annotations

import pytest

from engine.adapters.system import SystemRng


@pytest.mark.parametrize("bits", [1, 7, 8, 53, 62, 64, 128, 100_000])
def test_numbers_have_at_most_so_many_bits_and_use_all_of_them(bits: int) -> None:
    rng = SystemRng()
    numbers = [rng.getrandbits(bits) for _ in range(100)]
    assert all(0 <= number < 2**bits for number in numbers)
    seen = 0
    for number in numbers:
        seen |= number
    assert seen == 2**bits - 1


def test_no_number_comes_twice_also_when_more_chance_is_asked_for() -> None:
    rng = SystemRng()
    assert len({rng.getrandbits(128) for _ in range(1000)}) == 1000


def test_a_part_of_one_is_less_than_one() -> None:
    rng = SystemRng()
    numbers = [rng.random() for _ in range(1000)]
    assert all(0.0 <= number < 1.0 for number in numbers)
    assert 0.3 < sum(numbers) / 1000 < 0.7
