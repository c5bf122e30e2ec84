"""Which level the joules left can carry."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.governor.budget import EnergyBudget, bound

STEP_J = (0.3, 0.5, 0.75, 1.0)
TOP = 3


def plain(budget_j: float, **changes: float) -> EnergyBudget:
    """A budget without a reserve or a finish, to see one thing at a time."""
    return EnergyBudget(budget_j, **({"reserve_share": 0.0, "finish_share": 0.0} | changes))


@pytest.mark.parametrize(
    ("budget_j", "level"),
    [(1010, 3), (1002, 3), (1001, 2), (760, 2), (740, 1), (510, 1), (490, 0), (302, 0)],
)
def test_the_highest_level_that_can_be_held_to_the_end_is_taken(budget_j, level):
    assert bound(plain(budget_j), STEP_J, 0, 0, 1000, TOP).level == level


def test_with_cheap_steps_behind_it_a_job_may_rise():
    budget = plain(620)

    start = bound(budget, STEP_J, 0, 0, 1000, TOP)
    later = bound(budget, STEP_J, 300, 600, 1000, 1)

    assert start.level == 1
    assert later.level == 2


def test_the_finish_is_kept_for_the_top():
    with_finish = bound(plain(700, finish_share=0.3), STEP_J, 0, 0, 1000, TOP)

    assert with_finish.finish_steps == 300
    assert with_finish.level == 1  # 0.75 could be held to the end, but not with 300 steps at the top


def test_a_finish_that_cannot_be_paid_shrinks():
    tight = bound(plain(350 + 2, finish_share=0.3), STEP_J, 0, 0, 1000, TOP)

    assert tight.level == 0
    assert tight.finish_steps == pytest.approx(50 / 0.7)


def test_within_the_finish_one_level_is_chosen_for_all_that_is_left():
    short = bound(plain(1000, finish_share=0.3), STEP_J, 820, 800, 1000, TOP)

    assert short.level == 2


def test_what_the_end_will_cost_is_not_spent_on_steps():
    assert bound(plain(1010), STEP_J, 0, 0, 1000, TOP).level == 3
    assert bound(plain(1010, tail_j=50), STEP_J, 0, 0, 1000, TOP).level == 2


def test_the_reserve_shrinks_as_the_steps_are_done():
    budget = plain(1000, reserve_share=0.02)

    early = bound(budget, STEP_J, 0, 0, 1000, TOP)
    late = bound(budget, STEP_J, 900, 900, 1000, TOP)

    assert early.left_j == pytest.approx(980)
    assert late.left_j == pytest.approx(98)


def test_what_cannot_be_met_says_how_much_is_missing():
    verdict = bound(plain(200), STEP_J, 50, 0, 1000, TOP)

    assert not verdict.feasible
    assert verdict.level == 0
    assert verdict.short_j == pytest.approx(150)


@given(
    budget_j=st.floats(1, 2000),
    spent_j=st.floats(0, 2000),
    done=st.floats(0, 1000),
    current=st.integers(0, 3),
    finish=st.floats(0, 0.9),
)
def test_the_level_chosen_is_within_what_is_left_unless_it_is_the_least(
    budget_j, spent_j, done, current, finish
):
    verdict = bound(plain(budget_j, finish_share=finish), STEP_J, spent_j, done, 1000, current)

    needs_j = STEP_J[verdict.level] * verdict.steps_left
    assert verdict.level == 0 or needs_j <= budget_j - spent_j
    assert 0 <= verdict.finish_steps <= verdict.steps_left
