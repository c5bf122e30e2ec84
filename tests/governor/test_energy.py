"""The energy budget as a constraint: its level, its words, and what it does when joules are short."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greend.clock import ManualClock
from greend.governor.conditions import Conditions
from greend.governor.energy import EnergyBudget, EnergyMemory
from greend.governor.profile import LevelProfile
from greend.types import Action, Rank

COSTS = (0.25, 0.5, 0.75, 1.0)
NOW = ManualClock().now()


def measured(*levels: int) -> LevelProfile:
    """Levels cost what is estimated: 0.25 to 1 J a step."""
    profile = LevelProfile.prior(COSTS)
    for level in levels or (3,):
        for _ in range(20):
            profile = profile.observe(level, 20 * COSTS[level], 20, 20 * COSTS[level])
    return profile


def conditions(spent_j=0.0, done=0.0, total: int | None = 1000, profile=None, **more) -> Conditions:
    return Conditions(profile or measured(), spent_j, done, total, **more)


def budget(budget_j: float, **changes) -> EnergyBudget:
    return EnergyBudget(budget_j, **({"reserve_share": 0.0, "finish_share": 0.0} | changes))


def bound(limit: EnergyBudget, at: Conditions, memory: EnergyMemory | None = None):
    found, _ = limit.bound(at, memory, NOW)
    assert found is not None
    return found


def test_before_anything_is_measured_the_top_is_allowed():
    found = bound(budget(100), conditions(profile=LevelProfile.prior(COSTS)))

    assert (found.level, found.reason) == (3, "measuring what a step costs")


@pytest.mark.parametrize(
    ("at", "given_j", "level", "words"),
    [
        (
            {},
            600,
            1,
            "598 J for 1000 steps left is 0.598 J each; level 1 costs 0.500 J a step, level 2 0.750 J",
        ),
        ({}, 2000, 3, "the budget carries the top: 1998 J for 1000 steps left is 2.00 J each"),
        ({"spent_j": 250, "done": 800}, 600, 3, "348 J for 200 steps left is 1.74 J each"),
        ({"profile": measured(3, 0)}, 200, 0, "the budget cannot be met: needs 2"),
    ],
)
def test_the_reason_is_a_sentence_with_the_figures(at, given_j, level, words):
    found = bound(budget(given_j), conditions(**at))

    assert found.level == level
    assert words in found.reason
    assert (found.by, found.rank) == ("energy budget", Rank.BUDGET)


def test_what_the_end_will_cost_is_not_spent_on_steps():
    assert bound(budget(1010), conditions()).level == 3
    assert bound(budget(1010), conditions(tail_j=50.0)).level == 2


def test_the_reserve_shrinks_as_the_steps_are_done():
    limit = budget(1000, reserve_share=0.02)

    early, late = bound(limit, conditions()), bound(limit, conditions(900, 900))

    assert early.figures["left_j"] == pytest.approx(980)
    assert late.figures["left_j"] == pytest.approx(98)


@pytest.mark.parametrize(
    ("on_infeasible", "action"),
    [("run_level_0", Action.RUN), ("pause", Action.PAUSE), ("stop_at_checkpoint", Action.STOP)],
)
def test_what_cannot_be_met_has_the_consequence_that_was_chosen(on_infeasible, action):
    found = bound(budget(150, on_infeasible=on_infeasible), conditions(profile=measured(3, 0)))

    assert (found.level, found.feasible, found.action, found.urgent) == (0, False, action, True)
    assert found.figures["needs_low_j"] < 250 < found.figures["needs_high_j"]
    assert found.figures["ends_step"] == pytest.approx(600, rel=0.01)


def test_level_0_is_measured_before_a_budget_is_said_to_be_short():
    doubtful = bound(budget(230), conditions())

    assert (doubtful.level, doubtful.feasible) == (0, True)
    assert not bound(budget(230), conditions(profile=measured(3, 0))).feasible


def test_what_was_said_does_not_flicker():
    limit, seen = budget(250), measured(3, 0)
    said = []
    memory = None
    for given_j in (252.0, 248.0, 252.0, 254.0, 248.0, 258.0, 254.0):
        found, memory = budget(given_j).bound(conditions(profile=seen), memory, NOW)
        said.append(found.feasible if found else None)

    assert limit.by == "energy budget"
    assert said == [True, False, False, False, False, True, True]


def test_after_the_last_step_nothing_is_said_any_more():
    limit = budget(600)
    last, memory = limit.bound(conditions(590, 999), None, NOW)

    found, _ = limit.bound(conditions(700, 1000), memory, NOW)

    assert found is last


def test_the_mix_visits_a_level_that_was_never_measured_between_its_two():
    limit = budget(
        6000, order="mixed", quality=(0.5, 0.55, 0.6, 1.0)
    )  # by estimates, 1 and 2 are under a chord
    top = conditions(total=10_000, profile=measured(3, 0), level=3)
    least = conditions(240, 400, 10_000, profile=measured(3, 0, 1), level=1)

    first, memory = limit.bound(top, None, NOW)
    second, _ = limit.bound(least, memory, NOW)

    assert first is not None
    assert second is not None
    assert "level 2 is tried to see what it costs" in first.reason
    assert "level 2 is tried to see what it costs" in second.reason


def test_a_try_that_tells_nothing_is_given_up():
    limit = budget(620_000, order="mixed", quality=(0.5, 0.55, 0.6, 1.0))
    seen = measured(3, 0)
    memory, reasons = None, []
    for done in range(0, 2000, 100):
        found, memory = limit.bound(conditions(0.6 * done, done, 1_000_000, seen, level=0), memory, NOW)
        reasons.append(found.reason if found else "")

    assert "level 1 is tried" in reasons[0]
    assert "tried" not in reasons[-1]


def test_a_level_that_the_agent_refused_is_not_tried():
    limit = budget(620_000, order="mixed", quality=(0.5, 0.55, 0.6, 1.0))
    at = conditions(total=1_000_000, profile=measured(3, 0), level=0, refused=frozenset({1, 2}))

    assert "tried" not in bound(limit, at).reason


def test_two_levels_in_turn_are_said_with_their_shares():
    found = bound(budget(630, order="mixed"), conditions(profile=measured(0, 1, 2, 3), level=1))

    assert "levels 1 and 2 (0.500 J and 0.750 J a step) in turn, 51% of the steps at level 2" in found.reason


def test_joules_for_hardly_more_than_level_0_are_landed_softly():
    found = bound(budget(255, order="mixed"), conditions(profile=measured(0, 1, 2, 3), level=1))

    assert (found.level, found.urgent) == (0, True)


@pytest.mark.parametrize(
    ("spent_j", "level", "feasible"), [(0, 3, True), (470, 3, True), (490, 0, True), (599.9, 0, False)]
)
def test_with_nothing_known_of_the_steps_the_budget_is_stretched_at_its_end(spent_j, level, feasible):
    found = bound(budget(600), conditions(spent_j, 10, total=None))

    assert (found.level, found.feasible) == (level, feasible)
    assert "--steps" in found.reason


def test_earlier_runs_say_how_many_steps_to_plan_for():
    found = bound(budget(900), conditions(10, 10, total=None, steps_before=(1000, 1000, 1000)))

    assert found.level < 3
    assert "as the last 3 runs" in found.reason
    assert bound(budget(3000), conditions(10, 10, total=None, steps_before=(1000,) * 3)).level == 3


def job(seed: int, share: float, order: str, steps: int = 1500) -> tuple[float, float, list[int]]:
    """A job turn by turn, its levels up to 30 % off the estimates; joules over, a step's most, levels."""
    dice = random.Random(seed)
    true = [0.08 + 0.92 * c * (1 + 0.3 * dice.uniform(-1, 1) * (1 - c)) for c in COSTS]
    limit = EnergyBudget(share * steps, order=order)
    clock, profile, memory = ManualClock(), LevelProfile.prior(COSTS), None
    spent_j, done, level, levels = 0.0, 0, 3, []
    while done < steps:
        made = min(20, steps - done)
        used_j = sum(true[level] * (1 + dice.gauss(0, 0.05)) for _ in range(made))
        spent_j, done = spent_j + used_j, done + made
        profile = profile.observe(level, used_j, made, used_j)
        found, memory = limit.bound(
            Conditions(profile, spent_j, done, steps, level=level), memory, clock.advance(1)
        )
        assert found is not None
        level = found.level
        levels.append(level)
    return spent_j - share * steps, max(true), levels


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.5, 1.2), order=st.sampled_from(["rising", "mixed"]))
def test_a_budget_that_can_be_met_is_never_passed_by_more_than_a_step(seed, share, order):
    over_j, step_j, _ = job(seed, share, order)

    assert over_j <= step_j


def test_the_same_turns_give_the_same_levels():
    assert job(3, 0.6, "mixed") == job(3, 0.6, "mixed")
