"""A power cap: what is asked of the agent's bucket, and what the meter makes of it."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.bucket import Bucket
from greend.clock import ManualClock
from greend.governor.conditions import Conditions
from greend.governor.power import BURST_SHARE, PowerCap
from greend.governor.profile import LevelProfile
from greend.types import Rank

COSTS = (0.5, 1.0)
NOW = ManualClock().now()
PROFILE = LevelProfile.prior(COSTS).observe(1, 3000.0, 100, 100.0)
"""30 J and a second at the top, half of both below."""


def conditions(**changes) -> Conditions:
    return replace(Conditions(PROFILE, 0.0, 0.0, None, level=1), **changes)


def test_a_cap_leaves_the_level_alone_and_states_its_worst_window():
    bound, _ = PowerCap(20.0).bound(conditions(), None, NOW)

    assert (bound.rank, bound.level, bound.power_w, bound.burst_j) == (Rank.CAP, 1, 20.0, 4.0)
    assert bound.figures["worst_window_j"] == pytest.approx(200 + 4 + 30)
    assert "at most 20.0 W on average over any 10 s" in bound.reason
    assert "no window has more than 234 J, 17 % above the cap" in bound.reason


def test_a_cap_of_the_machine_is_shared_equally_by_its_jobs():
    bound, _ = PowerCap(60.0, shared=True).bound(conditions(sharing=3), None, NOW)

    assert bound.power_w == 20.0
    assert "at most 20.0 W on average over any 10 s (60.0 W among 3 jobs)" in bound.reason


@pytest.mark.parametrize(("capped_w", "power_w"), [(None, 20.0), (25.0, 20.0), (20.0, None), (18.0, None)])
def test_where_the_device_holds_the_cap_the_job_need_not_wait(capped_w, power_w):
    bound, _ = PowerCap(20.0).bound(conditions(capped_w=capped_w), None, NOW)

    assert bound.power_w == power_w
    assert bound.feasible


def test_a_hard_cap_whose_device_is_gone_is_held_on_average_and_said_not_to_hold():
    bound, _ = PowerCap(20.0, hard=True).bound(conditions(), None, NOW)

    assert not bound.feasible
    assert bound.power_w == 20.0
    assert "its peaks are not held" in bound.reason


def play(cap: PowerCap, powers_w: list[float], profile: LevelProfile = PROFILE) -> list[float]:
    """Return what the bucket is filled with while the job draws these powers for a second each."""
    clock, memory, spent_j, rates = ManualClock(), None, 0.0, []
    for power_w in powers_w:
        bound, memory = cap.bound(conditions(profile=profile, spent_j=spent_j), memory, clock.now())
        rates.append(bound.power_w)
        clock.advance(1.0)
        spent_j += power_w
    return rates


def test_a_job_that_keeps_its_cap_is_told_nothing_new():
    assert set(play(PowerCap(20.0), [20.0, 10.0, 30.0] * 50)) == {20.0}


def test_to_owe_one_step_is_no_excess():
    assert set(play(PowerCap(20.0), [48.0] + [20.0] * 50)) == {20.0}
    assert set(play(PowerCap(20.0), [60.0] + [20.0] * 50)) != {20.0}


def test_what_was_used_beyond_the_cap_is_taken_back_and_then_the_cap_is_the_rate_again():
    rates = play(PowerCap(20.0), [24.0] * 60 + [16.0] * 120)

    assert min(rates) < 18.0
    assert rates[-1] == 20.0


def test_the_rate_changes_no_more_than_once_a_window():
    rates = play(PowerCap(20.0), [21.0] * 150)
    changes = [n for n in range(1, len(rates)) if rates[n] != rates[n - 1]]

    assert len(changes) > 3
    assert all(later - earlier >= 10 for earlier, later in pairwise(changes))


@given(st.lists(st.floats(0.0, 500.0), min_size=1, max_size=60))
def test_whatever_the_meter_says_the_rate_stays_between_half_the_cap_and_the_cap(powers_w):
    assert all(10.0 <= rate <= 20.0 for rate in play(PowerCap(20.0), powers_w))


STEP_J, IDLE_W, CAP_W = 300.0, 60.0, 200.0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("expected", [0.8, 1.0])
def test_a_loop_that_expects_too_little_of_its_steps_still_ends_at_its_cap(seed, expected):
    """Steps of a second at 300 W, which the agent's bucket is told too little of: only the meter says so."""
    dice, clock, memory, cap = random.Random(seed), ManualClock(), None, PowerCap(CAP_W)
    profile = LevelProfile.prior((1.0,)).observe(0, STEP_J * 100, 100, 100.0)
    bucket, now_s, used_j, begin, next_turn_s = Bucket(CAP_W, 0.0, 1500.0, 0.0), 0.0, 0.0, None, 0.0
    while now_s < 900.0:
        while now_s >= next_turn_s:
            now = conditions(profile=profile, spent_j=used_j, level=0)
            bound, memory = cap.bound(now, memory, clock.now())
            bucket.change(bound.power_w, bound.burst_j, 1500.0, now_s)
            next_turn_s = next_turn_s + 1.0
            clock.advance(1.0)
        if begin is None and now_s >= 60.0:
            begin = (now_s, used_j)
        wait_s = min(bucket.wait_s(now_s), 0.05)
        if wait_s > 1e-9:
            step_s, step_j, told_j = wait_s, IDLE_W * wait_s, IDLE_W * wait_s
        else:
            step_s, step_j = 1.0, STEP_J * (1 + dice.gauss(0, 0.06))
            told_j = step_j * expected
        now_s, used_j = now_s + step_s, used_j + step_j
        bucket.spent(told_j, now_s)

    assert (used_j - begin[1]) / (now_s - begin[0]) == pytest.approx(CAP_W, rel=0.005)


@pytest.mark.parametrize(
    ("waiting_w", "rate_w"),
    [
        (0.0, 20.0),
        (6.0, 17.5),
        (20.0, 20.0),
        (25.0, 20.0),
    ],
)
def test_what_is_drawn_while_waiting_is_left_out_of_what_the_agent_may_spend_on_steps(waiting_w, rate_w):
    bound, _ = PowerCap(20.0).bound(conditions(waiting_w=waiting_w), None, NOW)
    step_s = 30.0 / bound.power_w

    assert bound.power_w == pytest.approx(rate_w, rel=1e-3)
    if 0 < waiting_w < 20.0:
        assert (30.0 + waiting_w * (step_s - 1.0)) / step_s == pytest.approx(20.0, rel=1e-3)


def test_a_burst_is_a_small_part_of_a_window():
    bound, _ = PowerCap(40.0, window_s=30.0).bound(conditions(), None, NOW)

    assert bound.burst_j == pytest.approx(BURST_SHARE * 40.0 * 30.0)
