"""What binds a job: limits, rules and holds as constraints that act or advise."""

from dataclasses import replace
from datetime import UTC, timedelta, timezone

import pytest

from greend.clock import ManualClock
from greend.config import Governor
from greend.errors import Unenforceable
from greend.governor.conditions import Conditions, Machine
from greend.governor.contract import of_period, policy_for
from greend.governor.decide import decide
from greend.governor.hold import Hold
from greend.governor.policy import State
from greend.governor.profile import LevelProfile
from greend.governor.rules import parse
from greend.types import Job, Limits

JOB = Job("j-1", "train", ("python",), "s", 1000, 42, 0)
NOW = ManualClock().now()  # 20:26:40 UTC


def policy(limits=Limits(), rules=(), holds=(), settings=Governor(), **more):  # noqa: B008
    parsed = [parse(name, body) for name, body in dict(rules).items()]
    return policy_for(replace(JOB, limits=limits), settings, parsed, holds, NOW, **{"zone": UTC} | more)


def names(constraints) -> list[str]:
    return [constraint.by for constraint in constraints]


@pytest.mark.parametrize(
    ("limits", "acting"),
    [
        (Limits(), []),
        (Limits(energy_j=30_000.0), ["energy budget"]),
        (Limits(power_w=40.0), ["power cap"]),
        (Limits(carbon_g=20.0), ["carbon budget"]),
        (Limits(cost=0.1), ["cost budget"]),
        (Limits(deadline_wall_ns=NOW.after(60).wall_ns), ["deadline"]),
        (
            Limits(energy_j=1.0, power_w=40.0, deadline_wall_ns=NOW.after(60).wall_ns),
            ["power cap", "energy budget", "deadline"],
        ),
    ],
)
def test_each_limit_of_a_job_acts(limits, acting):
    found = policy(limits)

    assert names(found.constraints) == acting
    assert found.advisers == ()


def test_the_waiting_times_are_those_of_the_settings():
    found = policy(settings=Governor(down_s=7.0, up_s=8.0, warmup_s=9.0))

    assert (found.down_s, found.up_s, found.warmup_s) == (7.0, 8.0, 9.0)


def test_how_a_budget_is_spent_goes_along():
    settings = Governor(reserve_share=0.05, finish_share=0.1)
    [budget] = policy(
        Limits(energy_j=9.0, order="mixed", on_infeasible="pause"), settings=settings
    ).constraints

    assert (budget.reserve_share, budget.finish_share) == (0.05, 0.1)
    assert (budget.order, budget.on_infeasible) == ("mixed", "pause")


def test_the_machines_budgets_of_a_period_act_too_each_in_its_own_unit():
    limits = Limits(energy_j=3.6e6, cost=1.0)
    found = policy(
        Limits(power_w=40.0), periods=of_period("day", limits, NOW.after(3600).wall_ns, Governor())
    )

    assert names(found.constraints) == ["power cap", "day's energy budget", "day's cost budget"]


def test_a_hard_cap_is_refused_where_no_hardware_holds_it_with_the_reason_and_the_way_out():
    with pytest.raises(
        Unenforceable, match=r"40\.0 W at every instant: only hardware .*leave --hard out"
    ) as found:
        policy(Limits(power_w=40.0, hard=True))

    assert found.value.exit_code == 5
    assert policy(Limits(power_w=40.0, hard=True), hardware=True).constraints[0].hard


def test_a_deadline_knows_the_cap_under_which_it_has_to_be_met():
    found = policy(Limits(power_w=40.0, deadline_wall_ns=NOW.after(60).wall_ns))

    assert found.constraints[1].power_w == 40.0


RULE = {
    "energy": "30kJ",
    "power": "40W",
    "machine_power": "90W",
    "level": 2,
    "cpu_busy_above": "90%",
    "temperature_above": "80C",
}
BY = [
    "policy night: power cap",
    "policy night: energy budget",
    "policy night: machine power cap",
    "policy night: cpu busy pressure",
    "policy night: temperature pressure",
    "policy night: levels",
]


def test_a_rule_advises_until_its_mode_is_act():
    advised, acted = policy(rules={"night": RULE}), policy(rules={"night": RULE | {"mode": "act"}})

    assert (names(advised.constraints), names(advised.advisers)) == ([], BY)
    assert (names(acted.constraints), names(acted.advisers)) == (BY, [])


def test_every_name_is_unique_so_that_none_takes_the_memory_of_another():
    rules = {"night": RULE | {"mode": "act"}, "day": RULE}
    found = policy(Limits(energy_j=1.0, power_w=1.0), rules)
    all_names = names((*found.constraints, *found.advisers))

    assert len(set(all_names)) == len(all_names)


@pytest.mark.parametrize(
    ("zone", "when", "holds"),
    [
        (UTC, "20:00-21:00", True),
        (UTC, "21:00-20:00", False),
        (timezone(timedelta(hours=2)), "22:00-23:00", True),
        (timezone(timedelta(hours=2)), "20:00-21:00", False),
    ],
)
def test_hours_are_those_of_the_time_zone(zone, when, holds):
    found = policy(rules={"night": {"level": 1, "when": when}}, zone=zone)

    assert bool(found.advisers) is holds


def test_a_hold_acts_and_raises_only_where_the_settings_grant_it():
    hold = Hold("ana", 2, "the show")

    assert policy(holds=[hold]).constraints[0].keep is False
    assert policy(holds=[hold], settings=Governor(holds_may_raise=True)).constraints[0].keep is True


def test_by_hand_acts_and_a_rule_is_named_beside_it():
    found = policy(Limits(power_w=40.0), {"night": {"level": 0}})
    profile = LevelProfile.prior((0.5, 1.0)).observe(1, 100.0, 100, 100.0)
    conditions = Conditions(profile, 0.0, 0.0, None, level=1, attached=NOW.after(-60), machine=Machine())

    decision, _ = decide(found, State(), conditions, NOW)

    assert (decision.level, decision.power_w, decision.advised) == (1, 40.0, False)
    assert [(bound.by, bound.advised) for bound in decision.bounds] == [
        ("power cap", False),
        ("policy night: levels", True),
    ]
