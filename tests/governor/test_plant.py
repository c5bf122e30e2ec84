"""The governor against a simulated job: noise, drift, wrong estimates, and a count of steps that lags."""

import random
from dataclasses import dataclass

import pytest

from greend.clock import ManualClock
from greend.governor.conditions import Conditions
from greend.governor.decide import decide
from greend.governor.energy import EnergyBudget
from greend.governor.policy import Policy, State
from greend.governor.profile import LevelProfile

COSTS = (0.25, 0.5, 0.75, 1.0)
STEPS = 2400
STEP_J = 0.17
POWER_W = 5.8
STARTUP_J, TAIL_J = 9.0, 2.0


@dataclass
class Outcome:
    used: float
    over_steps: float
    steps: int
    changes: int
    at_top_at_the_end: bool
    infeasible: bool


def run(seed: int, share: float) -> Outcome:
    """A job of about a minute whose levels cost up to 30 % more or less than estimated, and drift by 10 %."""
    dice = random.Random(seed)
    true = [0.08 + 0.92 * c * (1 + 0.3 * dice.uniform(-1, 1) * (1 - c)) for c in COSTS]
    drift = dice.uniform(-0.1, 0.1)
    budget_j = share * (STARTUP_J + STEPS * STEP_J + TAIL_J)
    policy = Policy((EnergyBudget(budget_j),))
    clock = ManualClock()
    attached, state = clock.now(), State()
    profile, spent_j, done, level, changes, infeasible = LevelProfile.prior(COSTS), STARTUP_J, 0, 3, 0, False
    while done < STEPS:
        made, used_j = 0, 0.0
        while used_j < POWER_W and done < STEPS:
            used_j += STEP_J * true[level] * (1 + drift * done / STEPS) * (1 + dice.gauss(0, 0.05))
            done, made = done + 1, made + 1
        spent_j += used_j
        now = clock.advance(used_j / POWER_W)
        seen = min(done + dice.uniform(-1, 1), STEPS)
        profile = profile.observe(level, used_j * (1 + dice.gauss(0, 0.01)), made + dice.uniform(-1, 1))
        known = Conditions(
            profile, spent_j, seen, STEPS, level=level, started=attached, attached=attached, tail_j=TAIL_J
        )
        decision, state = decide(policy, state, known, now)
        changes += decision.level != level
        level = decision.level
        infeasible = infeasible or not decision.feasible
    spent_j += TAIL_J
    return Outcome(spent_j / budget_j, (spent_j - budget_j) / STEP_J, done, changes, level == 3, infeasible)


@pytest.mark.parametrize("share", [0.5, 0.6, 0.8])
def test_a_budget_that_can_be_met_is_met_and_used(share):
    outcomes = [run(seed, share) for seed in range(100)]

    assert all(o.steps == STEPS for o in outcomes)
    assert all(o.over_steps <= 1 for o in outcomes)
    assert sum(o.used >= 0.97 for o in outcomes) >= 94
    assert all(o.used >= 0.95 for o in outcomes)
    assert all(1 <= o.changes <= 20 for o in outcomes)


def test_a_job_whose_budget_allows_it_ends_at_the_top():
    ended_at_top = [run(seed, 0.6).at_top_at_the_end for seed in range(100)]

    assert sum(ended_at_top) >= 90


def test_a_budget_above_the_need_leaves_the_model_alone():
    assert all(run(seed, 1.2).changes == 0 for seed in range(20))


def test_a_budget_that_cannot_be_met_is_said_while_the_job_runs_on_at_the_least_level():
    outcome = run(1, 0.25)

    assert outcome.infeasible
    assert outcome.steps == STEPS
    assert outcome.used > 1
