"""Low first and the top last: which level the joules left can carry."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.governor.rising import Means, Rising, rise

STEP_J = (0.3, 0.5, 0.75, 1.0)
TOP = 3


def rising(
    left_j: float, left: float = 1000, finish_share: float = 0.0, current: int = TOP, hopeful_j=STEP_J
) -> Rising:
    return rise(Means(left_j, left_j, left, 1000, finish_share), STEP_J, hopeful_j, current)


@pytest.mark.parametrize(
    ("left_j", "level"),
    [(1008, 3), (1000, 3), (999, 2), (758, 2), (738, 1), (508, 1), (488, 0), (300, 0), (-5, 0)],
)
def test_the_highest_level_that_can_be_held_to_the_end_is_taken(left_j, level):
    assert rising(left_j).level == level


def test_with_cheap_steps_behind_it_a_job_may_rise():
    assert rising(618, 1000).level == 1
    assert rising(318, 400, current=1).level == 2


def test_the_finish_is_kept_for_the_top():
    with_finish = rising(698, finish_share=0.3)

    assert with_finish.finish_steps == 300
    assert with_finish.level == 1  # without a finish 698 J carry the level at 0.75 J for 930 steps


def test_a_finish_that_cannot_be_paid_shrinks():
    tight = rising(350, finish_share=0.3)

    assert tight.level == 0
    assert tight.finish_steps == pytest.approx(50 / 0.7)


def test_within_the_finish_one_level_is_chosen_for_all_that_is_left():
    assert rising(178, 200, finish_share=0.3).level == 2


def test_a_dearer_level_is_tried_when_it_may_well_fit_but_not_near_the_end():
    hopeful_j = (0.3, 0.46, 0.69, 0.92)

    early = rising(470, 1000, current=0, hopeful_j=hopeful_j)
    late = rising(18.8, 40, current=0, hopeful_j=hopeful_j)

    assert (early.level, early.hopeful, early.may_try) == (1, True, True)
    assert (late.level, late.hopeful, late.may_try) == (0, False, False)


def test_a_level_in_force_is_kept_while_the_reserve_still_carries_it():
    means = Means(safe_j=740, hard_j=755, left=1000, total=1000, finish_share=0.0)

    assert rise(means, STEP_J, STEP_J, 2).level == 1
    assert rise(means, STEP_J, STEP_J, 2).keep


@given(
    left_j=st.floats(-100, 2000),
    left=st.floats(0, 1000),
    finish=st.floats(0, 0.9),
    current=st.integers(0, 3),
)
def test_what_is_chosen_can_be_paid_unless_it_is_the_least(left_j, left, finish, current):
    found = rising(left_j, left, finish, current)

    assert found.level == 0 or STEP_J[found.level] * left <= left_j * (1 + 1e-12)
    assert 0 <= found.finish_steps <= left
