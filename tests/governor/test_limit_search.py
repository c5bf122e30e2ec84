"""The power limit at which a step is cheapest, found by probing few."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.governor.limit_search import LimitSearch

IDLE_W, SATURATED_W, STEP_S = 100.0, 320.0, 0.1


def step_s(limit_w: float) -> float:
    """A device whose speed goes with the cube root of its dynamic power: dE/dP = 0 at 1.5 x idle power."""
    return STEP_S * max(((SATURATED_W - IDLE_W) / (min(limit_w, SATURATED_W) - IDLE_W)) ** (1 / 3), 1.0)


def step_j(limit_w: float) -> float:
    return min(limit_w, SATURATED_W) * step_s(limit_w)


def run(search: LimitSearch, noise: float = 0.0, seed: int = 0) -> LimitSearch:
    """Measure 50 steps at what is wanted until nothing more is."""
    dice = random.Random(seed)
    while not search.done:
        limit_w = search.wanted_w
        wrong = dice.gauss(1.0, noise) if noise else 1.0
        search = search.observe(limit_w, 50 * step_j(limit_w) * wrong, 50, 50 * step_s(limit_w))
        assert search.probes <= len(search.limits_w)
    return search


def test_the_optimum_of_a_convex_curve_is_found_in_eight_probes_of_fifteen():
    search = run(LimitSearch.over(110, 400, step_w=20, max_slowdown=None))

    assert (search.wanted_w, search.probes, len(search.limits_w)) == (160, 8, 15)
    assert search.saving == pytest.approx(1 - step_j(160) / step_j(400))
    assert search.slowdown == pytest.approx(step_s(160) / step_s(400) - 1)


def test_the_highest_limit_is_measured_first_since_a_slowdown_is_against_it():
    assert LimitSearch.over(100, 300).wanted_w == 300


@pytest.mark.parametrize("most", [0.0, 0.05, 0.1, 0.25])
def test_a_step_takes_no_longer_than_the_slowdown_that_is_allowed(most):
    search = run(LimitSearch.over(110, 400, step_w=10, max_slowdown=most))
    allowed = [p for p in search.limits_w if step_s(p) <= step_s(400) * (1 + most)]

    assert search.wanted_w in allowed
    assert step_j(search.wanted_w) <= min(step_j(p) for p in allowed) * 1.005


def test_the_next_run_starts_at_the_remembered_limit_and_looks_at_its_neighbours():
    before = run(LimitSearch.over(110, 400, step_w=20, max_slowdown=None))
    after = LimitSearch.over(110, 400, step_w=20, max_slowdown=None, remembered=before.remembered())
    after = after.observe(400, 50 * step_j(400), 50, 50 * step_s(400))

    assert after.wanted_w == before.wanted_w
    assert run(after).probes == 4
    assert run(after).wanted_w == before.wanted_w


def test_a_remembered_limit_that_no_longer_fits_is_left_behind():
    search = run(LimitSearch.over(110, 400, step_w=20, max_slowdown=None, remembered={"limit_w": 340}))

    assert search.wanted_w == 160


def test_steps_at_a_limit_that_is_not_searched_and_no_steps_change_nothing():
    search = LimitSearch.over(100, 300)

    assert search.observe(137, 1.0, 50, 1.0) is search
    assert search.observe(300, 1.0, 0, 1.0) is search


def test_nothing_is_remembered_of_a_search_under_way():
    assert LimitSearch.over(100, 300).remembered() == {}


@pytest.mark.parametrize(("least", "most", "step"), [(0, 300, 25), (300, 100, 25), (100, 300, 0)])
def test_limits_that_are_none_are_refused(least, most, step):
    with pytest.raises(ValueError, match="search a limit"):
        LimitSearch.over(least, most, step)


def test_one_limit_is_a_search_that_ends_with_it():
    search = run(LimitSearch.over(250, 260))

    assert (search.wanted_w, search.probes, search.saving) == (260, 1, 0.0)


@given(st.integers(0, 200))
def test_two_per_cent_of_noise_cost_six_at_most(seed):
    search = run(LimitSearch.over(110, 400, step_w=20, max_slowdown=None), noise=0.02, seed=seed)

    assert step_j(search.wanted_w) <= step_j(160) * 1.06


@given(
    st.lists(st.floats(0.02, 0.5), max_size=7),
    st.lists(st.floats(0.02, 0.5), max_size=7),
    st.none() | st.integers(0, 15),
)
def test_of_any_curve_with_one_valley_the_bottom_is_found(left, right, first):
    """Costs fall by the shares on the left down to the optimum and rise by those on the right."""
    costs = [1.0]
    for share in left:
        costs.insert(0, costs[0] * (1 + share))
    for share in right:
        costs.append(costs[-1] * (1 + share))
    limits = [100.0 + 25 * k for k in range(len(costs))]
    remembered = None if first is None else {"limit_w": 100.0 + 25 * first}
    search = LimitSearch.over(limits[0], limits[-1], max_slowdown=None, remembered=remembered)
    for _ in costs:
        if not search.done:
            search = search.observe(search.wanted_w, 50 * costs[limits.index(search.wanted_w)], 50, 1.0)

    assert search.done
    assert search.wanted_w == limits[len(left)]
