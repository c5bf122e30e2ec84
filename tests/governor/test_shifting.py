"""Where in a forecast the joules go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.clock import NS
from greend.governor.conditions import Hour
from greend.governor.shifting import J_PER_KWH, Plan, Work, plan_over

HOUR_NS = 3600 * NS
STEP_J, STEP_S = (90.0, 200.0, 300.0), (0.3, 0.7, 1.0)


def hours(*g_per_kwh: float) -> list[Hour]:
    return [Hour(n * HOUR_NS, (n + 1) * HOUR_NS, value) for n, value in enumerate(g_per_kwh)]


def work(steps: float) -> Work:
    return Work(STEP_J, STEP_S, (0, 1, 2), steps)


def planned(ahead: list[Hour], steps: float, left_g: float, done_by_h: float | None = None) -> Plan:
    done_by_ns = None if done_by_h is None else round(done_by_h * HOUR_NS)
    return plan_over(ahead, work(steps), left_g, done_by_ns)


def grams(steps: float, level: int, g_per_kwh: float) -> float:
    return steps * STEP_J[level] * g_per_kwh / J_PER_KWH


def test_with_grams_for_all_the_top_is_taken_and_nothing_is_saved():
    plan = planned(hours(400, 400, 400), 7200, 1000)

    assert (plan.per_step_j, plan.waits) == (300, False)
    assert plan.grams == pytest.approx(grams(7200, 2, 400))
    assert (plan.shrunk_g, plan.shifted_g) == (pytest.approx(0), pytest.approx(0))


def test_a_job_that_meets_dirty_hours_has_less_for_each_step():
    both = grams(7200, 2, 400) * 0.7

    assert planned(hours(600, 400), 7200, both).per_step_j < planned(hours(200, 400), 7200, both).per_step_j


def test_the_grams_are_used_up_and_what_was_saved_is_told_apart():
    plan = planned(hours(300, 500, 400, 300, 600), 14_000, 300)
    usual_g = grams(3600, 2, 300) + grams(3600, 2, 500) + grams(3600, 2, 400) + grams(3200, 2, 300)

    assert plan.grams == pytest.approx(300, rel=1e-3)
    assert plan.shrunk_g > 0
    assert plan.shrunk_g + plan.shifted_g == pytest.approx(usual_g - plan.grams)


def test_at_a_constant_intensity_nothing_can_be_shifted():
    plan = planned(hours(400, 400, 400), 7000, 150)

    assert plan.shifted_g == pytest.approx(0, abs=1e-6)
    assert plan.shrunk_g == pytest.approx(grams(7000, 2, 400) - 150, rel=5e-3)


def test_with_time_to_spare_until_its_end_a_job_waits_for_the_clean_hours():
    plan = planned(hours(500, 500, 100, 100, 500), 7000, 200, done_by_h=5)

    assert plan.waits
    assert plan.dirtiest_g_per_kwh == 100
    assert plan.grams == pytest.approx(grams(7000, 2, 100))
    assert plan.shifted_g == pytest.approx(grams(7000, 2, 500) - plan.grams)


def test_without_a_time_to_be_done_by_it_waits_only_when_the_budget_cannot_be_met_otherwise():
    ahead = hours(500, 500, 100, 100)

    assert not planned(ahead, 7000, grams(7000, 0, 500) * 1.1).waits
    assert planned(ahead, 7000, grams(7000, 0, 500) * 0.5).waits


def test_what_cannot_be_met_even_so_is_planned_at_level_0_as_the_hours_come():
    plan = planned(hours(500, 400), 7000, 1.0)

    assert (plan.per_step_j, plan.waits) == (90, False)
    assert plan.grams > 1.0


def test_beyond_the_forecast_its_mean_goes_on():
    plan = planned(hours(300, 500), 100_000, 1e9)

    assert plan.mean_g_per_kwh == pytest.approx(400)


@given(
    st.lists(st.floats(20, 900), min_size=1, max_size=24),
    st.floats(10, 60_000),
    st.floats(0.5, 5_000),
    st.none() | st.floats(0.5, 24),
)
def test_the_plan_is_never_over_the_grams_unless_level_0_is(g_per_kwh, steps, left_g, done_by_h):
    plan = planned(hours(*g_per_kwh), steps, left_g, done_by_h)

    assert plan.grams <= left_g * (1 + 1e-6) or plan.per_step_j == 90
    assert STEP_J[0] <= plan.per_step_j <= STEP_J[-1]
