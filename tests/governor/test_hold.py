"""Holds of people, and the levels that rules allow."""

import pytest

from greend.clock import ManualClock
from greend.governor.conditions import Conditions
from greend.governor.hold import Hold
from greend.governor.profile import LevelProfile
from greend.governor.span import Span
from greend.types import Rank

NOW = ManualClock().now()
CONDITIONS = Conditions(LevelProfile.prior((0.25, 0.5, 0.75, 1.0)), 0.0, 0.0, None)


@pytest.mark.parametrize(("asked", "level"), [(0, 0), (2, 2), (3, 3), (9, 3), (-1, 0)])
def test_a_hold_asks_for_its_level_or_less_with_its_reason(asked, level):
    bound, _ = Hold("ana", asked, "guests until six").bound(CONDITIONS, None, NOW)

    assert (bound.by, bound.rank, bound.level, bound.floor) == ("hold by ana", Rank.USER, level, 0)
    assert bound.reason == f"held at level {level} by ana: guests until six"
    assert bound.urgent


def test_a_hold_is_over_when_its_time_is():
    hold = Hold("ana", 1, "guests", until=NOW.after(60))

    assert hold.bound(CONDITIONS, None, NOW.after(59.9))[0] is not None
    assert hold.bound(CONDITIONS, None, NOW.after(60))[0] is None


def test_a_hold_that_may_raise_also_keeps_the_job_up():
    assert Hold("ana", 2, "the show", keep=True).bound(CONDITIONS, None, NOW)[0].floor == 2


@pytest.mark.parametrize(
    ("least", "most", "floor", "level", "words"),
    [
        (None, 1, 0, 1, "level 1 at most"),
        (2, None, 2, 3, "level 2 at least"),
        (1, 2, 1, 2, "level 2 at most, level 1 at least"),
        (9, None, 3, 3, "level 3 at least"),
        (None, 9, 0, 3, "level 3 at most"),
        (2, 1, 1, 1, "level 1 at most, level 1 at least"),
    ],
)
def test_a_rule_allows_levels_as_far_as_the_model_has_them(least, most, floor, level, words):
    bound, _ = Span("night", least, most).bound(CONDITIONS, None, NOW)

    assert (bound.floor, bound.level, bound.reason) == (floor, level, words)
