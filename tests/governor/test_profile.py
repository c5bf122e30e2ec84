"""What a step costs at each level, learned from few and noisy observations."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.governor.profile import KNOWN_STEPS, LevelProfile

COSTS = (0.25, 0.5, 0.75, 1.0)


def seen(*observations: tuple[int, float, float]) -> LevelProfile:
    profile = LevelProfile.prior(COSTS)
    for level, energy_j, steps in observations:
        profile = profile.observe(level, energy_j, steps)
    return profile


def test_nothing_is_known_before_the_first_observation():
    assert LevelProfile.prior(COSTS).step_j() is None


def test_a_handful_of_steps_is_not_yet_knowledge():
    assert seen((3, 1.0, KNOWN_STEPS - 1)).step_j() is None


def test_one_measured_level_scales_the_estimates_of_the_others():
    assert seen((3, 100.0, 100)).step_j() == pytest.approx((0.25, 0.5, 0.75, 1.0))


def test_two_measured_levels_tell_the_fixed_part_of_a_step_from_the_part_that_shrinks():
    fixed_j, whole_j = 0.2, 0.8

    step_j = seen((3, 100 * (fixed_j + whole_j), 100), (1, 100 * (fixed_j + whole_j * 0.5), 100)).step_j()

    assert step_j == pytest.approx([fixed_j + whole_j * cost for cost in COSTS])


def test_a_level_that_gets_dearer_takes_the_others_with_it():
    before = seen((3, 100.0, 100), (0, 30.0, 100))

    hotter = before
    for _ in range(300):
        hotter = hotter.observe(0, 36.0, 100)

    assert before.step_j() is not None
    assert hotter.step_j() == pytest.approx([1.2 * step_j for step_j in before.step_j() or ()], rel=0.01)


def test_a_lower_level_is_never_said_to_cost_more_than_a_higher_one():
    step_j = seen((0, 500.0, 100), (3, 100.0, 100)).step_j()

    assert step_j is not None
    assert list(step_j) == sorted(step_j)


@pytest.mark.parametrize(
    ("level", "energy_j", "steps"), [(0, 1.0, 0), (0, -1.0, 10), (4, 1.0, 10), (-1, 1.0, 10)]
)
def test_what_cannot_be_true_is_not_learned(level, energy_j, steps):
    profile = LevelProfile.prior(COSTS)

    assert profile.observe(level, energy_j, steps) is profile


def test_an_estimate_that_is_old_may_well_be_too_high():
    profile = seen((3, 100.0, 100))
    for _ in range(10):
        profile = profile.observe(0, 30.0, 100)

    assert profile.hopeful_step_j() is not None
    assert (profile.hopeful_step_j() or ())[3] < (profile.step_j() or ())[3]
    assert (profile.hopeful_step_j() or ())[0] == (profile.step_j() or ())[0]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1e6), st.floats(0.1, 1e4)), min_size=1, max_size=40)
)
def test_estimates_never_fall_from_a_level_to_the_next_and_are_never_negative(observations):
    step_j = seen(*observations).step_j()

    if step_j is not None:
        assert all(low <= high for low, high in pairwise(step_j))
        assert all(value >= 0 for value in step_j)
