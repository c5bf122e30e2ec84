"""Whether a budget can be met, said early and as an interval."""

import pytest

from greend.governor.feasibility import judge
from greend.governor.horizon import Horizon
from greend.governor.profile import LevelProfile
from greend.types import Action

COSTS = (0.25, 0.5, 1.0)
THOUSAND = Horizon(1000, 1000, True, "1000 steps")


def profile(least_seen: bool = True) -> LevelProfile:
    """Levels cost 0.3, 0.53 and 1 J a step."""
    seen = LevelProfile.prior(COSTS)
    for _ in range(10):
        seen = seen.observe(2, 20.0, 20)
    for _ in range(10 if least_seen else 0):
        seen = seen.observe(0, 6.0, 20)
    return seen


def judged(given_j: float, done: float = 0, spent_j: float = 0.0, announced: bool = False, **more):
    verdict = judge(
        more.pop("seen", profile()), spent_j, 0.0, given_j, done, more.pop("steps", THOUSAND), announced
    )
    assert verdict is not None
    return verdict


def test_before_anything_is_measured_nothing_is_said():
    assert judge(LevelProfile.prior(COSTS), 0, 0, 100, 0, THOUSAND, False) is None


@pytest.mark.parametrize(
    ("given_j", "short", "sure"),
    [(400, False, False), (302, False, False), (297, True, False), (200, True, True)],
)
def test_a_budget_is_short_when_level_0_is_expected_to_need_more(given_j, short, sure):
    verdict = judged(given_j)

    assert (verdict.short, verdict.sure) == (short, sure)
    assert verdict.low_j < 300 < verdict.high_j


def test_the_interval_is_said_in_words_with_the_step_at_which_the_joules_end():
    words = judged(200).words("run_level_0")

    assert words.startswith("the budget cannot be met: needs 28")
    assert "given 200 J; level 0 ends at step 66" in words
    assert words.endswith("of 1 000; it runs on at level 0")


@pytest.mark.parametrize(
    ("on_infeasible", "given_j", "action"),
    [
        ("run_level_0", 200, Action.RUN),
        ("pause", 200, Action.PAUSE),
        ("stop_at_checkpoint", 200, Action.STOP),
        ("pause", 297, Action.RUN),
        ("stop_at_checkpoint", 297, Action.RUN),
        ("stop_at_checkpoint", 400, Action.RUN),
    ],
)
def test_what_cannot_be_undone_waits_until_it_is_sure(on_infeasible, given_j, action):
    assert judged(given_j).action(on_infeasible) is action


def test_a_doubtful_level_0_is_measured_before_anything_is_said():
    seen = profile(least_seen=False)

    assert not judged(100, seen=seen).short
    assert judged(100, seen=seen, done=60, spent_j=18.0).short  # nobody could measure it


def test_what_was_said_is_taken_back_only_when_it_clearly_suffices():
    assert not judged(302).short
    assert judged(302, announced=True).short
    assert not judged(310, announced=True).short


def test_joules_for_less_than_two_steps_count_as_spent():
    assert judged(300, done=995, spent_j=299.5).sure


def test_the_interval_closes_as_the_steps_are_done():
    wide, narrow = judged(1000, 0), judged(1000, 900, 270.0)

    assert narrow.high_j - narrow.low_j < (wide.high_j - wide.low_j) / 3


def test_a_job_whose_length_is_judged_is_not_short_for_sure_before_all_is_spent():
    verdict = judged(200, steps=Horizon(1000, 2000, False, "about 1000 steps"))

    assert verdict.short
    assert not verdict.sure
