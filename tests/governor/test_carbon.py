"""Budgets in grams and in money, with forecasts that are good, old or broken."""

import math
from dataclasses import replace

import pytest

from greend.clock import NS, ManualClock
from greend.governor.carbon import WORLD_G_PER_KWH, CarbonBudget, CostBudget, current
from greend.governor.conditions import Conditions, Hour, Intensity
from greend.governor.energy import EnergyBudget
from greend.governor.profile import LevelProfile
from greend.types import Action, Rank

COSTS = (0.25, 0.5, 0.75, 1.0)
NOW = ManualClock().now()
HOUR_NS = 3600 * NS
PLAIN = EnergyBudget(math.inf, reserve_share=0.0, finish_share=0.0)


def profile() -> LevelProfile:
    """Levels cost 90 to 360 J a step and take 0.9 to 3.6 s: 1000 steps at the top are 100 Wh."""
    seen = LevelProfile.prior(COSTS)
    for level, cost in enumerate(COSTS):
        for _ in range(20):
            seen = seen.observe(level, 20 * 360 * cost, 20, 20 * 3.6 * cost)
    return seen


PROFILE = profile()


def ahead(*g_per_kwh: float, known_h_ago: float = 0.0) -> Intensity:
    hours = tuple(
        Hour(NOW.wall_ns + n * HOUR_NS, NOW.wall_ns + (n + 1) * HOUR_NS, value)
        for n, value in enumerate(g_per_kwh)
    )
    return Intensity(g_per_kwh[0], hours, NOW.wall_ns - round(known_h_ago * HOUR_NS), "yesterday's shape")


def conditions(intensity: Intensity | None, steps: int = 1000, **more) -> Conditions:
    return Conditions(
        PROFILE, more.pop("spent_j", 0.0), more.pop("done", 0.0), steps, intensity=intensity, **more
    )


def bound(limit, at: Conditions):
    found, _ = limit.bound(at, None, NOW)
    assert found is not None
    return found


@pytest.mark.parametrize(("budget_g", "level"), [(41, 3), (31, 2), (21, 1), (11, 0)])
def test_without_a_forecast_grams_are_joules_at_the_intensity_of_now(budget_g, level):
    found = bound(CarbonBudget(budget_g, PLAIN), conditions(Intensity(400.0, known_wall_ns=NOW.wall_ns)))

    assert (found.level, found.by, found.rank) == (level, "carbon budget", Rank.CARBON)
    assert f"{budget_g}.0 g left at 400 g/kWh" in found.reason


def test_what_was_emitted_before_counts_at_its_own_intensity():
    clean_before = conditions(Intensity(400.0, known_wall_ns=NOW.wall_ns), spent_j=1e6, spent_g=10.0)

    assert bound(CarbonBudget(41, PLAIN), clean_before).level == 2


@pytest.mark.parametrize(
    ("intensity", "words"),
    [
        (None, "no intensity is known"),
        (Intensity(math.nan, known_wall_ns=NOW.wall_ns), "has no figure for now"),
        (Intensity(300.0, known_wall_ns=NOW.wall_ns - 3 * HOUR_NS), "is 3 h old"),
        (ahead(300.0, 200.0, known_h_ago=25), "is 25 h old"),
    ],
)
def test_what_is_missing_broken_or_old_gives_way_to_the_mean_and_says_so(intensity, words):
    found = bound(CarbonBudget(100, PLAIN, mean_g_per_kwh=480), conditions(intensity))

    assert "a mean of 480 g/kWh" in found.reason
    assert words in found.reason
    assert found.figures["g_per_kwh"] == 480


def test_where_nobody_counts_grams_joules_count_at_the_mean():
    half_spent = conditions(None, spent_j=180_000.0, done=500.0)

    needs_g = 360_000.0 / 3.6e6 * WORLD_G_PER_KWH

    assert bound(CarbonBudget(needs_g * 1.02, PLAIN), half_spent).level == 3
    assert bound(CarbonBudget(needs_g * 0.98, PLAIN), half_spent).level == 2
    assert bound(CarbonBudget(needs_g, PLAIN), half_spent).figures["spent_g"] == pytest.approx(needs_g / 2)


def test_broken_hours_of_a_forecast_are_left_out():
    usable, _ = current(ahead(300.0, math.nan, -5.0, 200.0), 480.0, NOW)

    assert [hour.g_per_kwh for hour in usable.ahead] == [300.0, 200.0]


def test_hours_that_are_over_are_left_out_and_the_present_one_is_what_is_measured():
    forecast = replace(ahead(300.0, 250.0, 200.0), now_g_per_kwh=280.0)

    usable, _ = current(forecast, 480.0, NOW.after(1.5 * 3600))

    assert [hour.g_per_kwh for hour in usable.ahead] == [280.0, 200.0]
    assert usable.ahead[0].start_wall_ns == NOW.after(1.5 * 3600).wall_ns


def test_a_job_that_meets_dirty_hours_has_a_lower_level_than_one_that_meets_clean_ones():
    limit = CarbonBudget(90, PLAIN)

    dirty = bound(limit, conditions(ahead(600, 600, 600, 200, 200), 3600))
    clean = bound(limit, conditions(ahead(200, 200, 200, 600, 600), 3600))

    assert dirty.level < clean.level == 3
    assert "saved by less work" in dirty.reason
    assert dirty.figures["shrunk_g"] > 0


def test_with_a_time_to_be_done_by_the_job_waits_for_clean_hours():
    limit = CarbonBudget(60, PLAIN, done_by_wall_ns=NOW.wall_ns + 5 * HOUR_NS)

    found = bound(limit, conditions(ahead(600, 500, 100, 100, 100), 1800))

    assert (found.action, found.feasible) == (Action.PAUSE, True)
    assert "waits for an hour of at most 100 g/kWh" in found.reason


def test_a_carbon_budget_that_cannot_be_met_is_said_with_what_it_needs():
    found = bound(CarbonBudget(10, PLAIN), conditions(ahead(400, 400, 400), 3600))

    assert (found.level, found.feasible, found.action) == (0, False, Action.RUN)
    assert "needs 36.0 g more at level 0, 10.0 g for 3600 steps left" in found.reason


def test_grams_that_are_used_up_have_the_consequence_that_was_chosen():
    limit = CarbonBudget(10, replace(PLAIN, on_infeasible="stop_at_checkpoint"))

    found = bound(limit, conditions(ahead(400, 400), 3600, spent_g=10.0, done=500.0))

    assert (found.action, found.feasible) == (Action.STOP, False)


def test_within_an_hour_two_levels_take_turns_and_the_grams_suffice():
    limit, at = CarbonBudget(90, PLAIN), conditions(ahead(400, 400, 400, 400), 3600)
    memory, levels, now, spent_j, done = None, [1], NOW, 0.0, 0
    while done < 3600:
        step = replace(
            at, steps_done=float(done), spent_g=spent_j * 400 / 3.6e6, spent_j=spent_j, level=levels[-1]
        )
        found, memory = limit.bound(step, memory, now)
        assert found is not None
        levels.append(found.level)
        done += 10
        spent_j += 10 * 360 * COSTS[found.level]
        now = now.after(10 * 3.6 * COSTS[found.level])

    assert set(levels[:-300]) == {1, 2}
    assert 87 <= spent_j * 400 / 3.6e6 <= 90.1


@pytest.mark.parametrize(("cost", "level"), [(0.0302, 3), (0.0231, 2), (0.0155, 1)])
def test_money_is_joules_at_the_price(cost, level):
    found = bound(CostBudget(cost, PLAIN), replace(conditions(None), price_per_kwh=0.3))

    assert (found.level, found.by) == (level, "cost budget")
    assert "at 0.300 per kWh" in found.reason


@pytest.mark.parametrize("price", [None, math.nan, 0.0])
def test_without_a_price_a_budget_in_money_says_what_is_missing(price):
    found = bound(CostBudget(1.0, PLAIN), replace(conditions(None), price_per_kwh=price))

    assert found.level == 3
    assert "no price per kWh is known: set one" in found.reason
