"""A deadline: the highest level that is quick enough."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.clock import ManualClock
from greend.governor.conditions import Conditions
from greend.governor.deadline import Deadline
from greend.governor.profile import LevelProfile

COSTS = (0.25, 0.5, 0.75, 1.0)
NOW = ManualClock().now()
PROFILE = LevelProfile.prior(COSTS)
for _ in range(20):
    PROFILE = PROFILE.observe(3, 200.0, 100, 100.0)
"""2 J and a second at the top."""


def conditions(done: float = 0.0, total: int | None = 1000, **changes) -> Conditions:
    return replace(Conditions(PROFILE, 0.0, done, total, level=3), **changes)


def bound(seconds: float, power_w: float | None = None, **changes):
    return Deadline(NOW.after(seconds).wall_ns, power_w).bound(conditions(**changes), None, NOW)[0]


@pytest.mark.parametrize(
    ("seconds", "level"),
    [(2000, 3), (1100, 3), (1001, 3), (950, 2), (700, 1), (300, 0), (100, 0), (-5, 0)],
)
def test_the_highest_level_whose_steps_fit_into_the_time_left_is_taken(seconds, level):
    assert bound(seconds).level == level


def test_a_level_in_force_stays_while_it_is_expected_to_suffice_and_a_higher_one_needs_a_margin():
    assert bound(755, level=2).level == 2
    assert bound(755, level=1).level == 1
    assert bound(1000, level=1).level == 2


def test_what_cannot_be_met_is_said_with_its_figures():
    late = bound(100)

    assert not late.feasible
    assert "the deadline cannot be met: 1m 40s for 1000 steps left, level 0 needs 4m 10s to " in late.reason
    assert "and ends 2m 30s late" in late.reason
    assert late.figures["needs_s"] == pytest.approx(250, rel=0.01)


def test_the_reason_says_what_a_step_may_take():
    words = bound(600, level=1).reason

    assert words == "10m 00s for 1000 steps left is 0.600 s each; level 1 takes 0.500 s, level 2 0.750 s"


def test_under_a_power_cap_a_step_takes_as_long_as_its_joules_need():
    # At 1 W the top's 2 J take 2 s, and those of level 1 one second.
    assert bound(1100, power_w=1.0, level=1).level == 1
    assert bound(1100, power_w=1.0, level=3).level == 1
    assert "under 1.00 W" in bound(1100, power_w=1.0, level=1).reason


def test_without_a_number_of_steps_that_is_what_it_says():
    unknown = bound(100, total=None)

    assert (unknown.level, unknown.feasible) == (3, True)
    assert "the number of steps is unknown (give it with --steps)" in unknown.reason


def test_a_number_of_steps_is_judged_by_earlier_runs():
    judged = bound(700, total=None, steps_before=(1000, 1010, 990))

    assert judged.level < 3
    assert "judged by the last 3 runs" in judged.reason


def test_before_anything_is_measured_the_job_has_the_top():
    assert bound(10, profile=LevelProfile.prior(COSTS)).level == 3


def test_once_all_steps_are_made_the_deadline_is_met():
    assert bound(-5, done=1000.0).feasible


@given(st.floats(0, 2000), st.floats(0, 1000), st.integers(0, 3))
def test_what_is_allowed_is_expected_to_be_in_time_or_is_said_not_to_be(seconds, done, level):
    said = bound(seconds, done=done, level=level)

    assert said.feasible == (said.figures["needs_s"] <= said.figures["left_s"] or done == 1000)
    assert said.feasible or said.level == 0
