"""How many steps to plan for when nobody said it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.governor.horizon import KEEP_QUANTILE, PLAN_QUANTILE, horizon


def test_a_number_that_was_given_is_the_horizon():
    found = horizon(500, (900, 900), 10)

    assert found is not None
    assert (found.steps, found.most, found.known) == (500, 500, True)


def test_without_a_number_and_without_earlier_runs_there_is_none():
    assert horizon(None, (), 10) is None
    assert horizon(None, (0,), 10) is None


@pytest.mark.parametrize(
    ("runs", "words"), [((1000,), "the last run"), ((1000, 1000, 1000), "the last 3 runs")]
)
def test_runs_that_all_made_as_many_steps_say_that_the_command_fixes_the_number(runs, words):
    found = horizon(None, runs, 400)

    assert found is not None
    assert (found.steps, found.most, found.known, found.said) == (1000, 1000, True, False)
    assert words in found.words


def test_a_job_that_outlives_runs_that_agreed_is_planned_for_with_room():
    found = horizon(None, (1000,), 1021)

    assert found is not None
    assert not found.known
    assert found.steps > 1040
    assert found.most > 1.3 * 1000


def test_the_more_runs_nearly_agree_the_closer_is_the_plan():
    lengths = [horizon(None, (1000, 1001) * count, 0) for count in (1, 2, 5, 15)]

    steps = [found.steps for found in lengths if found is not None]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] < 1080


def test_the_quantiles_hold_for_jobs_drawn_from_the_same_law():
    dice = random.Random(1)
    within, below_most, draws = 0, 0, 4000
    for _ in range(draws):
        runs = tuple(round(3000 * dice.lognormvariate(0, 0.25)) for _ in range(8))
        steps = 3000 * dice.lognormvariate(0, 0.25)
        found = horizon(None, runs, 0)
        assert found is not None
        within += steps <= found.steps
        below_most += steps <= found.most

    assert within / draws == pytest.approx(PLAN_QUANTILE, abs=0.03)
    assert below_most / draws == pytest.approx(KEEP_QUANTILE, abs=0.02)


@given(st.lists(st.integers(1, 10**7), min_size=1, max_size=20), st.floats(0, 1e9), st.floats(1, 1e6))
def test_the_horizon_is_ahead_and_moves_on_with_the_steps(runs, done, more):
    here, there = horizon(None, runs, done), horizon(None, runs, done + more)

    assert here is not None
    assert there is not None
    assert done <= here.steps <= here.most
    assert there.steps >= here.steps * (1 - 1e-9)
