"""A governor over a simulated job: what it learns, what it holds, and that the books add up."""

from dataclasses import replace

import pytest

from greend.clock import Instant
from greend.governor.conditions import Intensity
from greend.governor.energy import EnergyBudget
from greend.governor.hold import Hold
from greend.governor.policy import Policy
from greend.governor.power import PowerCap
from greend.simulation.device import Device
from greend.simulation.meter import Meter
from greend.simulation.plant import Plant
from greend.simulation.run import Known, run
from greend.simulation.workload import Contention, Workload

DEVICE = Device(idle_w=60.0, saturated_w=300.0)
STEP_J = (90.0, 195.0, 300.0)
COSTS = (0.3, 0.65, 1.0)
JOB = Workload.of(DEVICE, STEP_J, 1500, COSTS, noise=0.05, switch_j=300.0, switch_s=2.0)
FREE_J = 1500 * 300.0


def outcome(policy: Policy, workload: Workload = JOB, seed: int = 1, meter: Meter | None = None, **known):
    plant = Plant(workload, DEVICE, meter, seed)
    return run(lambda now: policy, Known(known.pop("costs", COSTS), workload.steps, **known), plant)


def budget(share: float, order: str = "mixed", **more) -> Policy:
    return Policy((EnergyBudget(share * FREE_J, order=order, **more),))


def test_a_job_that_nothing_binds_runs_at_the_top():
    free = outcome(Policy())

    assert (free.steps_done, free.steps_at, free.switches, free.quality) == (1500, (0, 0, 1500), 0, 1.0)
    assert free.used_j == pytest.approx(FREE_J, rel=0.01)
    assert free.metered_j == pytest.approx(free.used_j)


def test_the_same_seed_gives_the_same_decisions():
    first, second = outcome(budget(0.7)), outcome(budget(0.7))

    assert first.decisions == second.decisions
    assert first.used_j == second.used_j


@pytest.mark.parametrize("order", ["mixed", "rising"])
@pytest.mark.parametrize("share", [0.45, 0.7, 0.9])
def test_a_budget_is_used_and_not_passed(order, share):
    for seed in range(3):
        held = outcome(budget(share, order), seed=seed)
        assert held.steps_done == 1500
        assert held.used_j <= share * FREE_J + 300
        assert held.used_j >= 0.93 * share * FREE_J


def test_what_is_learned_is_what_the_levels_cost():
    learned = outcome(budget(0.7, quality=COSTS), costs=(0.2, 0.5, 1.0)).profile

    for level in range(3):
        if learned.known(level):
            assert learned.step_j()[level] == pytest.approx(STEP_J[level], rel=0.1)
    assert sum(learned.known(level) for level in range(3)) >= 2


@pytest.mark.parametrize(
    "meter",
    [
        Meter(lag_s=0.5),
        Meter(quantum_j=50.0),
        Meter(wraps_at_j=5000.0),
        Meter(frozen=((100.0, 130.0),)),
        Meter(period_s=0.1, lag_s=0.2, quantum_j=0.1, wraps_at_j=65_536.0),
    ],
    ids=["late", "coarse", "wraps", "freezes", "all of it"],
)
def test_a_budget_is_kept_on_a_meter_that_is(meter):
    held = outcome(budget(0.7), meter=meter)

    assert held.steps_done == 1500
    assert held.used_j <= 0.7 * FREE_J + 600
    assert held.metered_j == pytest.approx(held.used_j, abs=300)


def test_drift_and_a_neighbour_are_paid_out_of_the_same_budget():
    rough = replace(JOB, drift=0.15, contention=(Contention(0.2, 0.4),))
    held = outcome(budget(0.7), rough)

    assert held.steps_done == 1500
    assert held.used_j <= 0.7 * FREE_J + 350


def test_a_budget_that_cannot_be_met_is_said_and_run_on_at_level_0():
    held = outcome(budget(0.2))

    assert held.infeasible
    assert "cannot be met" in held.infeasible[0].reason
    assert (held.steps_done, held.stopped) == (1500, False)
    assert held.steps_at[0] > 1300


def test_a_job_that_is_to_stop_when_its_budget_cannot_be_met_stops():
    held = outcome(budget(0.2, on_infeasible="stop_at_checkpoint"))

    assert held.stopped
    assert held.steps_done < 500


def test_a_cap_is_held_by_waiting():
    held = outcome(Policy((PowerCap(200.0),)))

    assert held.used_j / held.seconds == pytest.approx(200.0, rel=0.01)
    assert held.steps_at[2] == 1500


def test_a_hold_is_obeyed_while_it_lasts():
    start = Plant(JOB, DEVICE).now_s
    assert start == 0.0
    held = outcome(Policy((Hold("ana", 0, "a demonstration"),)))

    assert held.steps_at[0] >= 1490


def test_grams_are_those_of_the_time_of_the_joules():
    def intensity(now: Instant) -> Intensity:
        return Intensity(360.0)

    free = outcome(Policy(), intensity=intensity)

    assert free.emitted_g == pytest.approx(free.metered_j / 1e4)


def test_advice_is_not_obeyed():
    advised = outcome(Policy(advisers=(EnergyBudget(0.5 * FREE_J),)))

    assert advised.switches == 0
    assert any(decision.advised for decision in advised.decisions)
