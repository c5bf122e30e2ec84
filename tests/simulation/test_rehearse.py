"""What would have happened: a rehearsal comes near what did, and says what other limits had done."""

import pytest

from greend.config import Governor
from greend.errors import Unenforceable
from greend.governor.rules import Rule
from greend.simulation.rehearse import Facts, rehearse, steps_at
from greend.simulation.workload import Contention
from greend.types import Decision, Job, Limits

COSTS = (0.25, 0.5, 0.75, 1.0)
FACTS = Facts(
    COSTS, (30.0, 52.0, 76.0, 100.0), (0.2, 0.3, 0.4, 0.5), 3000, startup_j=500.0, startup_s=5.0, tail_j=300.0
)
FREE_J = 500 + 3000 * 100 + 300


def decided(*changes: tuple[int, int]) -> list[Decision]:
    return [Decision(level, "", 0, step) for step, level in changes]


def test_what_is_left_alone_costs_what_its_steps_cost():
    assert FACTS.free_j() == pytest.approx(FREE_J)
    assert rehearse(FACTS, Limits()).used_j == pytest.approx(FREE_J, rel=0.002)


def test_a_job_whose_levels_draw_different_powers_is_reproduced_by_each_of_them():
    device, work = FACTS.device(), FACTS.workload()

    for level in range(4):
        assert work.step_j(device, level) == pytest.approx(FACTS.step_j[level])
        assert device.seconds(work.dynamic_j[level], work.least_s(level)) == pytest.approx(
            FACTS.step_s[level]
        )


@pytest.mark.parametrize(
    ("changes", "made"),
    [
        ([], (0, 0, 0, 100)),
        ([(10, 1)], (0, 90, 0, 10)),
        ([(0, 3), (10, 0), (60, 3)], (50, 0, 0, 50)),
        ([(10, 0), (150, 3)], (90, 0, 0, 10)),
    ],
)
def test_steps_at_each_level_follow_from_the_decisions(changes, made):
    assert steps_at(decided(*changes), 100, 3) == made


def past(share: float, seed: int, **rough):
    """A simulated job that was held to a share, and what its history would say of it."""
    from dataclasses import replace

    limits = Limits(energy_j=share * FREE_J)
    happened = rehearse(replace(FACTS, noise=0.06, **rough), limits, seed=seed)
    job = Job(
        "j-1", "train", ("train",), "s", 0, 1, FACTS.started_wall_ns, limits=limits,
        steps_done=happened.steps_done, costs=COSTS, tail_j=300.0,
    )  # fmt: skip
    return happened, job, limits


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("rough", [{}, {"drift": 0.1}, {"contention": (Contention(0.3, 0.5, 1.2),)}])
def test_a_rehearsal_under_its_own_budget_comes_near_what_happened(share, rough):
    happened, job, limits = past(share, 3, **rough)
    facts = Facts.of(job, happened.profile, happened.metered_j, happened.decisions)
    again = rehearse(facts, limits)

    assert again.steps_done == happened.steps_done
    assert again.used_j == pytest.approx(happened.used_j, rel=0.04)
    assert again.quality == pytest.approx(happened.quality, rel=0.06)


def test_a_smaller_budget_makes_a_job_use_less_and_lose_quality():
    outcomes = [rehearse(FACTS, Limits(energy_j=share * FREE_J)) for share in (0.9, 0.7, 0.5)]

    used = [outcome.used_j for outcome in outcomes]
    quality = [outcome.quality for outcome in outcomes]
    assert used == sorted(used, reverse=True)
    assert quality == sorted(quality, reverse=True)


def test_a_rule_that_only_advises_is_rehearsed_as_if_it_acted():
    rule = Rule("night", mode="advise", level=1)

    assert rehearse(FACTS, Limits(), (rule,)).steps_at[3] < 50


def test_a_deadline_counts_from_the_start_of_the_job():
    free_s = rehearse(FACTS, Limits()).seconds
    limits = Limits(deadline_wall_ns=FACTS.started_wall_ns + round(0.8 * free_s * 1e9))
    held = rehearse(FACTS, limits)

    assert held.seconds <= 0.81 * free_s
    assert held.steps_done == 3000


def test_a_hard_cap_is_refused_with_the_reason():
    with pytest.raises(Unenforceable, match="only hardware"):
        rehearse(FACTS, Limits(power_w=100.0, hard=True))


def test_nothing_is_made_up_of_a_job_that_was_not_measured():
    from greend.governor.profile import LevelProfile

    _, job, _ = past(0.9, 1)

    assert Facts.of(job, LevelProfile.prior(COSTS), 100.0, []) is None


def test_settings_are_those_of_the_daemon():
    finish = [
        rehearse(FACTS, Limits(energy_j=0.6 * FREE_J), settings=Governor(finish_share=share)).steps_at[3]
        for share in (0.0, 0.5)
    ]

    assert finish[0] < finish[1]
