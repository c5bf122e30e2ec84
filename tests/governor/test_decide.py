"""One decision about one job: from all bounds, by table."""

from dataclasses import dataclass, replace

import pytest

from greend.clock import Instant, ManualClock
from greend.governor.conditions import Conditions
from greend.governor.decide import decide
from greend.governor.policy import Policy, State
from greend.governor.profile import LevelProfile
from greend.types import Action, Bound, Decision, Rank

COSTS = (0.25, 0.5, 0.75, 1.0)
TOP = 3
NOW = ManualClock().now()
LONG_AGO = NOW.after(-3600)
MEASURED = LevelProfile.prior(COSTS).observe(3, 100.0, 100, 100.0)
"""Levels cost 0.25, 0.5, 0.75 and 1 J and seconds a step."""


@dataclass(frozen=True)
class Says:
    """A constraint that says what it is told to, and counts its turns."""

    said: Bound | None
    by: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "by", self.by or (self.said.by if self.said else "nothing"))

    def bound(self, conditions, memory, now):
        return self.said, (memory or 0) + 1


def says(by: str, level: int, rank: Rank = Rank.BUDGET, **more) -> Says:
    return Says(Bound(by, rank, level, f"because of {by}", **more))


def conditions(**changes) -> Conditions:
    usual = Conditions(MEASURED, 10.0, 100.0, 1000, level=TOP, started=LONG_AGO, attached=LONG_AGO)
    return replace(usual, **changes)


def at(level: int, changed: Instant | None = LONG_AGO, **more) -> State:
    """The state of a job at a level since a while."""
    decision = Decision(level, "before", LONG_AGO.wall_ns, 0, **more)
    return State(decision, changed, 0.0, LONG_AGO)


def test_without_a_limit_the_job_has_the_top():
    decision, state = decide(Policy(), State(), conditions(), NOW)

    assert (decision.level, decision.reason, decision.by) == (TOP, "no limit: the top level", "")
    assert state.decision is decision


@pytest.mark.parametrize(
    ("bounds", "level", "by"),
    [
        ([says("budget", 2), says("hold", 1, Rank.USER)], 1, "hold"),
        ([says("hold", 1, Rank.USER), says("budget", 1), says("heat", 1, Rank.SAFETY)], 1, "heat"),
        ([says("carbon", 0, Rank.CARBON), says("budget", 0), says("cap", 0, Rank.CAP)], 0, "cap"),
        ([says("carbon", 0, Rank.CARBON), says("budget", 0)], 0, "budget"),
        ([says("hold", 0, Rank.USER), says("carbon", 0, Rank.CARBON)], 0, "carbon"),
        ([says("budget", TOP), says("hold", TOP, Rank.USER)], TOP, ""),
        ([says("budget", 9)], TOP, ""),
        ([says("hold", 1, Rank.USER), says("budget", 2, action=Action.PAUSE)], 1, "budget"),
    ],
)
def test_the_least_bound_holds_and_among_equals_safety_cap_budget_carbon_user(bounds, level, by):
    decision, _ = decide(Policy(tuple(bounds)), State(), conditions(), NOW)

    assert (decision.level, decision.by) == (level, by)
    assert {bound.by for bound in decision.bounds} == {constraint.by for constraint in bounds}


def test_level_pace_power_and_action_may_come_from_different_bounds_and_all_reasons_are_told():
    policy = Policy(
        (
            says("budget", 1),
            says("heat", TOP, Rank.SAFETY, pace=0.5),
            says("cap", TOP, Rank.CAP, power_w=40.0, burst_j=8.0),
            says("wide cap", TOP, Rank.CAP, power_w=90.0, burst_j=18.0),
        )
    )

    decision, _ = decide(policy, State(), conditions(), NOW)

    assert (decision.level, decision.pace, decision.power_w, decision.burst_j) == (1, 0.5, 40.0, 8.0)
    assert decision.reason == "because of budget; heat: because of heat; cap: because of cap"


def test_a_floor_lifts_what_budgets_and_users_ask_for_but_no_cap_and_nothing_for_safety():
    keep = says("keep", 2, Rank.USER, floor=2)

    for other, level in (
        (says("budget", 0), 2),
        (says("carbon", 0, Rank.CARBON), 2),
        (says("hold", 0, Rank.USER), 2),
        (says("cap", 1, Rank.CAP), 1),
        (says("heat", 0, Rank.SAFETY), 0),
    ):
        assert decide(Policy((other, keep)), State(), conditions(), NOW)[0].level == level


def test_an_unchanged_decision_is_the_same_object_so_that_nothing_is_stored_twice():
    policy = Policy((says("budget", 2),))
    first, state = decide(policy, State(), conditions(), NOW)

    again, after = decide(policy, state, conditions(spent_j=11.0, steps_done=101.0), NOW.after(1))

    assert again is first
    assert after.memory == {"budget": 2}


@pytest.mark.parametrize(
    "change",
    [
        {"pace": 0.5},
        {"power_w": 40.0},
        {"action": Action.PAUSE},
        {"feasible": False},
    ],
)
def test_what_is_to_be_done_differently_is_a_new_decision_at_once(change):
    first, state = decide(Policy((says("budget", 2),)), State(), conditions(), NOW)

    second, after = decide(Policy((says("budget", 2, **change),)), state, conditions(), NOW.after(1))

    assert second is not first
    assert second.previous == second.level == 2
    assert after.changed == state.changed


def test_who_binds_may_change_without_a_new_decision_each_turn():
    _, state = decide(Policy((says("budget", 2), says("hold", 2, Rank.USER))), State(), conditions(), NOW)
    other = Policy((says("budget", 3), says("hold", 2, Rank.USER)))

    soon, _ = decide(other, state, conditions(), NOW.after(1))
    later, _ = decide(other, state, conditions(), NOW.after(5))

    assert (soon.by, later.by) == ("budget", "hold")


@pytest.mark.parametrize(
    ("wanted", "urgent", "since_s", "level"),
    [
        (1, False, 1.0, 2),  # a fall waits two seconds, so that a whole turn has measured the level
        (1, False, 2.0, 1),
        (1, True, 0.0, 1),
        (3, False, 4.9, 2),  # a rise waits five
        (3, False, 5.0, 3),
        (3, True, 1.0, 2),
        (3, True, 2.0, 3),
    ],
)
def test_a_level_is_kept_for_a_while(wanted, urgent, since_s, level):
    policy = Policy((says("budget", wanted, urgent=urgent),))
    changed = replace(at(2, NOW.after(-since_s)), changed_step=95.0)

    assert decide(policy, changed, conditions(), NOW)[0].level == level


def test_an_urgent_bound_is_followed_at_once_and_a_lower_one_that_is_not_only_after_a_while():
    policy = Policy((says("budget", 0), says("heat", 1, Rank.SAFETY, urgent=True)))

    first, state = decide(policy, at(3, NOW.after(-0.5)), conditions(), NOW)
    second, _ = decide(policy, state, conditions(), NOW.after(2.0))

    assert (first.level, second.level) == (1, 0)
    assert "level 1 stays for now, level 0 follows" in first.reason


def test_a_wait_does_not_outlast_a_short_job():
    policy = Policy((says("budget", 2),))
    state = replace(at(1, NOW.after(-2.5)), changed_step=80.0)

    assert decide(policy, state, conditions(steps_done=99.0), NOW)[0].level == 1
    assert decide(policy, state, conditions(steps_done=100.0), NOW)[0].level == 2


def test_a_rise_waits_for_twenty_times_of_what_a_change_takes():
    policy = Policy((says("hold", 2, Rank.USER),))
    state = replace(at(1), changed_step=95.0)

    slow = conditions(switch_s=4.0)
    assert decide(policy, replace(state, changed=NOW.after(-79)), slow, NOW)[0].level == 1
    assert decide(policy, replace(state, changed=NOW.after(-80)), slow, NOW)[0].level == 2


@pytest.mark.parametrize(
    ("rank", "switch_j", "steps_left", "level"),
    [
        # Until the next change 5 s pass: 6.7 steps at level 2, each 0.25 J above level 1: 1.67 J.
        (Rank.BUDGET, 0.8, 900, 2),
        (Rank.BUDGET, 0.9, 900, 1),
        (Rank.BUDGET, 0.8, 5, 1),  # fewer steps are left than a block has
        (Rank.USER, 0.9, 900, 2),  # nobody counts the joules
    ],
)
def test_a_rise_has_to_bring_twice_of_what_the_change_costs_where_joules_are_scarce(
    rank, switch_j, steps_left, level
):
    policy = Policy((says("limit", 2, rank),))
    now = conditions(switch_j=switch_j, steps_done=1000.0 - steps_left)

    assert decide(policy, at(1), now, NOW)[0].level == level


@pytest.mark.parametrize(
    ("wanted", "refused", "dead", "level"),
    [
        (2, {2}, (), 1),
        (1, {1, 0}, (), 2),
        (1, (), {1}, 0),
        (3, {3}, {3}, 3),
        (0, {0, 1, 2}, (), 3),
        (0, (), {0}, 0),
    ],
)
def test_a_level_that_is_refused_or_saves_nothing_is_passed_over(wanted, refused, dead, level):
    profile = replace(MEASURED, dead=frozenset(dead))
    now = conditions(profile=profile, refused=frozenset(refused))

    assert decide(Policy((says("budget", wanted),)), State(), now, NOW)[0].level == level


@pytest.mark.parametrize(
    ("constraint", "level", "reason"),
    [
        (says("budget", 0), TOP, "measuring what a step costs at the top"),
        (says("budget", 0, urgent=True), 0, "because of budget"),
        (says("hold", 0, Rank.USER), 0, "because of hold"),
        (says("heat", 0, Rank.SAFETY), 0, "because of heat"),
    ],
)
@pytest.mark.parametrize("attached", [None, NOW.after(-1.0)])
def test_a_job_that_has_just_attached_is_measured_before_anything_is_reckoned_from_it(
    constraint, level, reason, attached
):
    decision, _ = decide(Policy((constraint,)), State(), conditions(attached=attached), NOW)

    assert (decision.level, decision.reason) == (level, reason)


def test_after_the_last_step_nothing_is_decided_any_more():
    last = at(2)

    decision, after = decide(Policy((says("budget", 0),)), last, conditions(steps_done=1000.0), NOW)

    assert decision is last.decision
    assert after is last


def test_a_job_that_makes_more_steps_than_were_said_is_one_of_unknown_length():
    seen = []

    class Looks:
        by = "looks"

        def bound(self, conditions, memory, now):
            seen.append(conditions.steps_total)
            return None, None

    decide(Policy((Looks(),)), at(2), conditions(steps_done=1002.0), NOW)

    assert seen == [None]


def test_an_adviser_is_named_and_not_obeyed():
    policy = Policy(advisers=(says("night", 0),))

    decision, _ = decide(policy, State(), conditions(), NOW)

    assert (decision.level, decision.advised, decision.by) == (TOP, True, "")
    assert decision.reason == "no limit: the top level; only advised: because of night"
    assert [(bound.by, bound.level, bound.advised) for bound in decision.bounds] == [("night", 0, True)]


def test_beside_what_acts_an_adviser_only_stands_among_the_bounds():
    policy = Policy((says("budget", 2),), (says("night", 0, action=Action.STOP),))

    decision, _ = decide(policy, State(), conditions(), NOW)

    assert (decision.level, decision.advised, decision.by) == (2, False, "budget")
    assert decision.action is Action.RUN
    assert [bound.advised for bound in decision.bounds] == [False, True]


def test_other_advice_is_told_but_not_each_turn():
    first, state = decide(Policy(advisers=(says("night", 0),)), State(), conditions(), NOW)
    other = Policy(advisers=(says("night", 2),))

    soon, state = decide(other, state, conditions(), NOW.after(1))
    later, _ = decide(other, state, conditions(), NOW.after(6))

    assert soon is first
    assert later.bounds[0].level == 2


def test_a_decision_keeps_the_figures_it_was_made_from():
    policy = Policy((says("budget", 2, figures={"left_j": 7.0}),))

    decision, _ = decide(policy, at(3), conditions(), NOW)

    assert decision.inputs == {"spent_j": 10.0, "steps_done": 100.0, "left_j": 7.0}
    assert (decision.at_step, decision.previous, decision.at_wall_ns) == (100, 3, NOW.wall_ns)


def test_what_a_constraint_remembers_goes_with_it():
    policy = Policy((says("budget", 2), says("hold", 1, Rank.USER)))
    _, state = decide(policy, State(), conditions(), NOW)
    _, state = decide(Policy((says("budget", 2),)), state, conditions(), NOW.after(1))

    assert state.memory == {"budget": 2}
