"""The simulator finds the bugs that are planted into the product, each for what it does."""

from __future__ import annotations

import pytest

from tests.simulation.planted import BUGS, Bug, hunt
from tests.simulation.run import simulate

_SHORT = 4
"""A seed that takes next to no time."""


@pytest.mark.proof
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found_for_what_it_does(bug: Bug) -> None:
    found = hunt(bug)
    assert found.plausible, str(found)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_plant_is_there_for_its_block_alone(bug: Bug) -> None:
    plant = bug.plant
    before = vars(plant.owner)[plant.name]

    def go_wrong() -> None:
        with plant():
            assert vars(plant.owner)[plant.name] is not before
            raise LookupError

    with pytest.raises(LookupError):
        go_wrong()
    assert vars(plant.owner)[plant.name] is before


def test_nothing_of_the_plants_is_left_behind() -> None:
    clean = simulate(_SHORT)
    assert clean.failure is None
    for bug in BUGS:
        simulate(_SHORT, plant=bug.plant())
    assert simulate(_SHORT) == clean


@pytest.mark.proof
def test_without_a_bug_the_same_faults_break_nothing() -> None:
    """Else finding the planted ones would mean nothing."""
    for bug in BUGS:
        if bug.faults is not None:
            assert simulate(0, faults=bug.faults).failure is None
            assert simulate(1, faults=bug.faults).failure is None
