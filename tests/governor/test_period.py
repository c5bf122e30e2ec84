"""The budget of a day or a month, shared by all jobs."""

import math
from dataclasses import replace

import pytest

from greend.clock import NS, ManualClock
from greend.governor.conditions import Conditions, Intensity
from greend.governor.energy import EnergyBudget
from greend.governor.period import PeriodBudget
from greend.governor.profile import LevelProfile
from greend.types import Action

COSTS = (0.25, 0.5, 0.75, 1.0)
NOW = ManualClock().now()
PLAIN = EnergyBudget(math.inf, reserve_share=0.0, finish_share=0.0)


def profile() -> LevelProfile:
    """Levels cost 25 to 100 J a step and take 0.25 to 1 s: 100 W at each."""
    seen = LevelProfile.prior(COSTS)
    for level, cost in enumerate(COSTS):
        for _ in range(20):
            seen = seen.observe(level, 20 * 100 * cost, 20, 20 * cost)
    return seen


PROFILE = profile()


def day(energy_j: float | None = None, hours: float = 10, **more) -> PeriodBudget:
    return PeriodBudget("day", NOW.wall_ns + round(hours * 3600 * NS), energy_j, energy=PLAIN, **more)


def conditions(total: int | None = 1000, day_j: float = 0.0, sharing: int = 1, **more) -> Conditions:
    return Conditions(PROFILE, 0.0, 0.0, total, spent_in={"day": day_j}, sharing=sharing, **more)


def bound(limit: PeriodBudget, at: Conditions):
    found, _ = limit.bound(at, None, NOW)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("day_j", "sharing", "level"), [(0, 1, 3), (120_000, 1, 2), (0, 2, 3), (0, 3, 1), (0, 5, 0)]
)
def test_a_job_that_ends_within_the_period_gets_the_level_that_its_share_carries(day_j, sharing, level):
    found = bound(day(201_000), conditions(day_j=day_j, sharing=sharing))

    assert found.level == level
    assert found.by == "day's energy budget"
    assert found.power_w is None


@pytest.mark.parametrize("total", [None, 10_000_000])
def test_a_job_without_an_end_in_sight_gets_its_share_evenly(total):
    found = bound(day(3_600_000, hours=10), conditions(total, sharing=2))

    assert found.power_w == pytest.approx(50)
    assert found.level == 3
    assert "1.00 kWh of 1.00 kWh left for 10h 00m among 2 jobs: 50.0 W on average for the job" in found.reason


def test_a_share_that_is_more_than_the_job_takes_holds_nothing():
    found = bound(day(36_000_000, hours=10), conditions(None))

    assert (found.power_w, found.level) == (None, 3)


def test_a_period_that_is_used_up_pauses_the_job_until_its_end():
    found = bound(day(1000), conditions(day_j=1000.0))

    assert (found.action, found.feasible, found.level) == (Action.PAUSE, False, 0)
    assert "paused until 20" in found.reason


def test_a_period_that_has_ended_says_nothing():
    assert day(1000, hours=-0.1).bound(conditions(), None, NOW)[0] is None


def test_grams_and_money_are_joules_of_today():
    at = conditions(None, intensity=Intensity(400.0, known_wall_ns=NOW.wall_ns), price_per_kwh=0.25)

    in_grams, in_money = bound(day(carbon_g=200.0), at), bound(day(cost=0.125), at)

    assert in_grams.power_w == pytest.approx(50)
    assert in_money.power_w == in_grams.power_w
    assert (in_grams.by, in_money.by) == ("day's carbon budget", "day's cost budget")


def test_money_without_a_price_says_what_is_missing():
    assert "no price per kWh is known" in bound(day(cost=1.0), conditions()).reason


def test_before_anything_is_measured_the_top_is_allowed():
    at = replace(conditions(), profile=LevelProfile.prior(COSTS))

    assert bound(day(1e6), at).level == 3
