"""One decision about one job, by table."""

from dataclasses import replace

import pytest

from greend.clock import Instant, ManualClock
from greend.governor.budget import EnergyBudget
from greend.governor.decide import Conditions, Policy, State, decide
from greend.governor.profile import LevelProfile

COSTS = (0.25, 0.5, 0.75, 1.0)
NOW = ManualClock().now()
LONG_AGO = NOW.after(-3600)
MEASURED = LevelProfile.prior(COSTS).observe(3, 100.0, 100)
"""Levels cost 0.25, 0.5, 0.75 and 1 J a step."""


def policy(budget_j: float | None = 600.0) -> Policy:
    budget = None if budget_j is None else EnergyBudget(budget_j, reserve_share=0.0, finish_share=0.0)
    return Policy(budget, hold_s=5.0, warmup_s=2.0)


def conditions(spent_j=0.0, done=0.0, total: int | None = 1000, profile=MEASURED) -> Conditions:
    return Conditions(profile, spent_j, done, total)


def state(level: int | None = None, changed: Instant | None = LONG_AGO, step: int = 0) -> State:
    decision = None
    if level is not None:
        decision = replace(decide(policy(None), State(), conditions(), LONG_AGO), level=level, at_step=step)
    return State(decision, changed, attached=LONG_AGO)


def test_without_a_budget_the_job_has_the_top():
    decision = decide(policy(None), State(), conditions(), NOW)

    assert (decision.level, decision.reason) == (3, "no budget: the top level")


def test_before_anything_is_measured_the_job_has_the_top():
    decision = decide(policy(), state(), conditions(profile=LevelProfile.prior(COSTS)), NOW)

    assert (decision.level, decision.reason) == (3, "measuring what a step costs at the top")


def test_a_job_that_has_just_attached_is_measured_first():
    fresh = State(attached=NOW.after(-1.0))

    assert decide(policy(), fresh, conditions(), NOW).level == 3


@pytest.mark.parametrize(
    ("current", "budget_j", "spent_j", "done", "level", "words"),
    [
        (3, 600, 0, 0, 1, "598 J for 1000 steps left is 0.598 J each; level 1 costs 0.500 J a step"),
        (3, 300, 0, 0, 0, "level 0 costs 0.250 J a step, level 1 0.500 J"),
        (2, 2000, 0, 0, 3, "the budget carries the top"),
        (1, 600, 250, 800, 3, "the budget carries the top: 348 J for 200 steps left is 1.74 J each"),
        (3, 200, 0, 0, 0, "the budget cannot be met: 50.0 J short for 1000 steps left even at level 0"),
    ],
)
def test_the_reason_is_a_sentence_with_the_figures(current, budget_j, spent_j, done, level, words):
    decision = decide(policy(budget_j), state(current), conditions(spent_j, done), NOW)

    assert decision.level == level
    assert words in decision.reason


def test_a_level_that_was_last_measured_long_ago_is_tried_when_it_may_well_fit():
    stale = MEASURED
    for _ in range(20):
        stale = stale.observe(1, 50.0, 100)

    decision = decide(policy(), state(1), conditions(420, 815, profile=stale), NOW)

    assert decision.level == 3
    assert (
        "178 J for 185 steps left is 0.962 J each; level 3 last cost 1.00 J, worth a try" in decision.reason
    )


def test_an_unchanged_decision_is_the_same_object_so_that_nothing_is_stored_twice():
    first = decide(policy(), state(3), conditions(), NOW)

    again = decide(policy(), State(first, NOW, LONG_AGO), conditions(1.0, 2), NOW.after(1))

    assert again is first


def test_the_same_inputs_give_the_same_decision():
    once, twice = (decide(policy(), state(3), conditions(10, 20), NOW) for _ in range(2))

    assert once == twice


def test_a_rise_waits_until_the_level_was_held_for_a_while():
    just_changed = state(0, changed=NOW.after(-1.0))

    assert decide(policy(), just_changed, conditions(5, 10), NOW).level == 0
    assert decide(policy(), just_changed, conditions(5, 10), NOW.after(5.0)).level == 1


def test_a_hold_does_not_outlast_a_short_job():
    just_changed = state(0, changed=NOW.after(-1.0), step=0)

    assert decide(policy(), just_changed, conditions(5, 21), NOW).level == 1


def test_a_level_is_measured_for_a_whole_turn_before_a_fall_that_is_due():
    tried = state(2, changed=NOW.after(-1.0))

    assert decide(policy(), tried, conditions(100, 10), NOW).level == 2
    assert decide(policy(), tried, conditions(100, 10), NOW.after(1.0)).level < 2


def test_near_the_end_a_fall_that_is_due_does_not_wait():
    tried = state(3, changed=NOW.after(-1.0))

    assert decide(policy(), tried, conditions(570, 960), NOW).level < 3


def test_the_top_is_taken_at_once_when_it_can_be_paid_for_all_that_is_left():
    just_changed = state(0, changed=NOW.after(-1.0), step=899)

    assert decide(policy(), just_changed, conditions(450, 900), NOW).level == 3


def test_after_the_last_step_nothing_is_decided_any_more():
    last = state(2)

    assert decide(policy(), last, conditions(599.9, 1000), NOW) is last.decision


@pytest.mark.parametrize(("spent_j", "level"), [(0, 3), (470, 3), (490, 0), (700, 0)])
def test_with_an_unknown_number_of_steps_the_budget_is_stretched_at_its_end(spent_j, level):
    decision = decide(policy(), state(), conditions(spent_j, 10, total=None), NOW)

    assert decision.level == level
    assert "--steps" in decision.reason
    assert decision.feasible == (spent_j < 600)


def test_a_decision_keeps_the_figures_it_was_made_from():
    decision = decide(policy(), state(3), conditions(100, 50), NOW)

    assert decision.inputs["spent_j"] == 100
    assert decision.inputs["steps_left"] == 950
    assert decision.inputs["step_j_3"] == pytest.approx(1.0)
    assert (decision.at_step, decision.previous, decision.at_wall_ns) == (50, 3, NOW.wall_ns)
