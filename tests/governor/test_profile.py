"""What a step costs at each level, learned from few and noisy observations."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.governor.profile import KNOWN_STEPS, LevelProfile, monotone

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
    both = [(3, 100 * (fixed_j + whole_j), 100), (1, 100 * (fixed_j + whole_j * 0.5), 100)]

    step_j = seen(*both * 5).step_j()

    assert step_j == pytest.approx([fixed_j + whole_j * cost for cost in COSTS], rel=0.005)


def test_a_level_that_gets_dearer_takes_the_others_with_it():
    before = seen(*[(3, 100.0, 100)] * 20, *[(0, 30.0, 100)] * 20)

    hotter = before
    for _ in range(300):
        hotter = hotter.observe(0, 36.0, 100)

    assert before.step_j() is not None
    assert hotter.step_j() == pytest.approx([1.2 * step_j for step_j in before.step_j() or ()], rel=0.02)


def test_a_level_that_was_first_seen_in_a_bad_moment_is_learned_anew_and_leaves_the_others_alone():
    bad = seen(*[(3, 100.0, 100)] * 20, (0, 90.0, 100))

    step_j = seen(*[(3, 100.0, 100)] * 20, (0, 90.0, 100), *[(0, 30.0, 100)] * 20).step_j()

    assert (bad.step_j() or ())[0] > 0.6
    assert step_j is not None
    assert step_j[0] == pytest.approx(0.3, rel=0.1)
    assert step_j[3] == pytest.approx(1.0, rel=0.1)


def test_one_odd_turn_moves_little_and_a_change_for_good_is_followed_within_seconds():
    steady = seen(*[(3, 100.0, 100)] * 50)

    once = steady.observe(3, 300.0, 100)
    for_good = steady
    for _ in range(6):
        for_good = for_good.observe(3, 150.0, 100)

    assert once.step_j() == pytest.approx(steady.step_j(), rel=0.03)
    assert (for_good.step_j() or ())[3] == pytest.approx(1.5, rel=0.03)


@pytest.mark.parametrize("energy_j", [300.0, 1.0])
def test_what_is_not_sound_is_not_learned(energy_j):
    steady = seen(*[(3, 100.0, 100)] * 5)

    assert steady.observe(3, energy_j, 100, 1.0, sound=False) is steady


def test_the_doubt_shrinks_with_what_is_seen_and_widens_the_estimate():
    few, many = seen((3, 20.0, 20)), seen(*[(3, 20.0, 20)] * 30)

    assert few.step_sd()[3] > many.step_sd()[3] > 0
    assert few.step_sd()[0] > 0.2
    assert (many.step_j(1.0) or ())[3] > (many.step_j() or ())[3] > (many.step_j(-1.0) or ())[3]


def test_seconds_are_learned_beside_joules():
    timed = LevelProfile.prior(COSTS)
    for _ in range(10):
        timed = timed.observe(3, 100.0, 10, seconds=2.0)

    assert timed.step_s() == pytest.approx((0.05, 0.1, 0.15, 0.2), rel=0.01)
    assert seen((3, 100.0, 100)).step_s() is None


def test_a_level_that_saves_nothing_is_dead_until_it_clearly_saves_again():
    dead = seen(*[(3, 100.0, 100)] * 20, *[(2, 98.5, 100)] * 20)
    hardly, alive = dead, dead
    for _ in range(40):
        hardly = hardly.observe(2, 95.5, 100).observe(3, 100.0, 100)
        alive = alive.observe(2, 90.0, 100).observe(3, 100.0, 100)

    assert dead.dead == {2}
    assert (dead.alive(2), dead.alive(1)) == (3, 1)
    assert hardly.dead == {2}
    assert alive.dead == frozenset()


def test_the_next_run_starts_from_what_this_one_learned():
    learned = seen(*[(3, 100.0, 100)] * 20, *[(1, 65.0, 100)] * 20)

    again = LevelProfile.prior(COSTS, json.loads(json.dumps(learned.remembered())))

    assert again.step_j() == pytest.approx(learned.step_j(), rel=1e-6)
    assert [again.known(level) for level in range(4)] == [False, True, False, True]
    assert again.step_sd()[1] > learned.step_sd()[1]


def test_a_machine_that_is_slower_today_is_soon_believed():
    again = LevelProfile.prior(COSTS, seen(*[(3, 100.0, 100)] * 20, *[(1, 65.0, 100)] * 20).remembered())

    for _ in range(3):
        again = again.observe(3, 115.0, 100)

    assert (again.step_j() or ())[1] == pytest.approx(0.65 * 1.15, rel=0.03)


@pytest.mark.parametrize(
    "remembered",
    [
        {},
        {"costs": [0.5, 1.0], "step_j": [[1.0, 0.1], [2.0, 0.1]]},
        {"costs": list(COSTS), "step_j": [None] * 4, "step_s": [None] * 4},
        {"costs": list(COSTS), "step_j": [[-1.0, 0.1]] * 4, "step_s": [None] * 4},
        {"costs": list(COSTS), "step_j": [["x", 0.1]] * 4, "step_s": [None] * 4},
        {"costs": None, "step_j": 3},
    ],
)
def test_a_memory_that_does_not_fit_is_passed_over(remembered):
    assert LevelProfile.prior(COSTS, remembered) == LevelProfile.prior(COSTS)


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


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=12))
def test_pooling_keeps_the_order_the_mean_and_what_was_in_order(values):
    pooled = monotone(values, [1.0] * len(values))

    assert all(low <= high * (1 + 1e-12) for low, high in pairwise(pooled))
    assert sum(pooled) == pytest.approx(sum(values))
    assert monotone(sorted(values), [1.0] * len(values)) == tuple(sorted(values))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1e6), st.floats(0.1, 1e4)), min_size=1, max_size=40)
)
def test_estimates_never_fall_from_a_level_to_the_next_and_are_never_negative(observations):
    step_j = seen(*observations).step_j()

    if step_j is not None:
        assert all(low <= high for low, high in pairwise(step_j))
        assert all(value >= 0 for value in step_j)
