"""The arbiter's promises, whatever the bounds are."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from greend.clock import ManualClock
from greend.governor.arbiter import verdict
from greend.governor.conditions import Conditions
from greend.governor.decide import decide
from greend.governor.policy import Policy, State
from greend.governor.profile import LevelProfile
from greend.types import Action, Bound, Rank

COSTS = (0.25, 0.5, 0.75, 1.0)
TOP = 3
MEASURED = LevelProfile.prior(COSTS).observe(3, 100.0, 100, 100.0)


ANY = st.booleans()


def bounds(urgent=ANY):
    return st.builds(
        Bound,
        by=st.sampled_from(["a", "b", "c", "d"]),
        rank=st.sampled_from(Rank),
        level=st.integers(-1, 5),
        reason=st.just("why"),
        pace=st.sampled_from([1.0, 0.75, 0.5]),
        power_w=st.sampled_from([None, 40.0, 90.0]),
        urgent=urgent,
        action=st.sampled_from([Action.RUN, Action.RUN, Action.RUN, Action.PAUSE]),
        floor=st.sampled_from([0, 0, 0, 2]),
    )


class Plays:
    """A constraint that says one thing after the other."""

    by = "plays"

    def __init__(self, said: list[Bound]) -> None:
        self.said = said

    def bound(self, conditions, memory, now):
        at = memory or 0
        return self.said[at], at + 1


@given(st.lists(bounds(), min_size=1, max_size=6))
def test_nothing_is_above_what_a_bound_allows_but_by_a_floor(said):
    together = verdict(said, TOP)
    floor = max(bound.floor for bound in said)

    for bound in said:
        allowed = max(bound.level, 0)
        if bound.rank > Rank.CAP:
            allowed = max(allowed, floor)
        assert together.level <= allowed
        assert together.pace <= bound.pace
        assert bound.power_w is None or together.power_w <= bound.power_w
    assert 0 <= together.level <= TOP
    assert any(together.binding is bound for bound in said)


@given(
    st.lists(bounds(), min_size=1, max_size=6).flatmap(
        lambda said: st.tuples(st.just(said), st.permutations(said))
    )
)
def test_the_order_of_the_bounds_changes_nothing_that_is_done(pair):
    def done(said):
        found = verdict(said, TOP)
        return found.level, found.pace, found.power_w, found.action, found.urgent_level, found.by != ""

    assert done(pair[0]) == done(pair[1])


def play(said: list[Bound], turn_s: float, steps_per_turn: float = 1.0):
    """Let a constraint say all that, and return the seconds and levels of all decisions with a new level."""
    clock = ManualClock()
    start = clock.now()
    policy, state, levels = Policy((Plays(said),)), State(), [(0.0, TOP)]
    for turn in range(len(said)):
        now = clock.advance(turn_s)
        conditions = Conditions(
            MEASURED, 0.0, turn * steps_per_turn, 100_000, level=TOP, attached=start.after(-60)
        )
        decision, state = decide(policy, state, conditions, now)
        if decision.level != levels[-1][1]:
            levels.append((now.seconds_since(start), decision.level))
    return levels


@given(st.lists(bounds(urgent=st.just(False)), min_size=1, max_size=120), st.floats(0.2, 5.0))
def test_between_two_changes_there_are_two_seconds_before_a_fall_and_five_before_a_rise(said, turn_s):
    levels = play(said, turn_s)

    for (before_s, before), (after_s, after) in pairwise(levels[1:]):
        assert after_s - before_s >= (5.0 if after > before else 2.0) - 1e-6


@given(st.lists(bounds(), min_size=1, max_size=120), st.floats(0.2, 5.0))
def test_even_if_all_is_urgent_rises_are_no_more_than_one_in_two_seconds_and_falls_end_at_the_least_level(
    said, turn_s
):
    levels = play(said, turn_s)
    rises = [s for (_, low), (s, high) in pairwise(levels) if high > low]
    changes = len(levels) - 1

    assert len(rises) <= len(said) * turn_s / 2.0 + 1
    assert changes <= (TOP + 1) * (len(rises) + 1)


@given(st.lists(bounds(), min_size=1, max_size=30))
def test_the_same_inputs_give_the_same_decisions(said):
    assert play(said, 1.0) == play(said, 1.0)
