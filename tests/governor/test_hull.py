"""Which levels are worth their joules, and the mix of two of them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.governor.hull import mix, quality_by_cost, upper_hull

COSTS_J = (90.0, 140.0, 200.0, 250.0, 300.0)


def test_levels_with_diminishing_returns_are_all_on_the_hull():
    assert upper_hull(COSTS_J, (0.5, 0.75, 0.9, 0.97, 1.0)) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("quality", "hull"),
    [
        ((0.5, 0.55, 0.9, 0.97, 1.0), (0, 2, 3, 4)),
        ((0.5, 0.6, 0.7, 0.8, 1.0), (0, 4)),
        ((0.3, 0.9, 0.92, 0.99, 1.0), (0, 1, 3, 4)),
    ],
)
def test_a_level_under_a_chord_is_left_out(quality, hull):
    assert upper_hull(COSTS_J, quality) == hull


def test_of_two_levels_that_cost_the_same_the_better_one_is_kept():
    assert upper_hull((90.0, 90.0, 200.0), (0.5, 0.6, 1.0)) == (1, 2)


def test_a_dead_level_is_left_out_even_when_it_is_the_least():
    assert upper_hull(COSTS_J, (0.5, 0.75, 0.9, 0.97, 1.0), dead={0, 3}) == (1, 2, 4)


def test_without_figures_of_the_user_returns_diminish():
    quality = quality_by_cost((0.25, 0.5, 1.0))

    assert quality == pytest.approx((0.5, 0.7071, 1.0), abs=1e-4)


@pytest.mark.parametrize(
    ("per_step_j", "low", "high", "share"),
    [
        (50, 0, 0, 0.0),
        (90, 0, 0, 0.0),
        (115, 0, 1, 0.5),
        (290, 3, 4, 0.8),
        (300, 4, 4, 1.0),
        (400, 4, 4, 1.0),
    ],
)
def test_the_mix_uses_what_a_step_may_use(per_step_j, low, high, share):
    found = mix((0, 1, 2, 3, 4), COSTS_J, per_step_j)

    assert (found.low, found.high, found.share) == (low, high, pytest.approx(share))


levels = st.integers(1, 10).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(0.1, 1e3), min_size=n, max_size=n),
        st.lists(st.floats(0, 1), min_size=n, max_size=n),
    )
)


@given(levels, st.floats(0, 2e3))
def test_a_mix_has_two_neighbours_on_the_hull_and_costs_no_more_than_it_may(figures, per_step_j):
    step_j, quality = sorted(figures[0]), sorted(figures[1])
    hull = upper_hull(step_j, quality)

    found = mix(hull, step_j, per_step_j)

    mean_j = (1 - found.share) * step_j[found.low] + found.share * step_j[found.high]
    assert hull.index(found.high) - hull.index(found.low) in (0, 1)
    assert 0 <= found.share <= 1
    assert mean_j <= max(per_step_j, step_j[hull[0]]) * (1 + 1e-9)


@given(levels)
def test_slopes_fall_along_the_hull(figures):
    step_j, quality = sorted(figures[0]), sorted(figures[1])
    hull = upper_hull(step_j, quality)

    slopes = [(quality[b] - quality[a]) / (step_j[b] - step_j[a]) for a, b in pairwise(hull)]

    assert hull[-1] == len(step_j) - 1
    assert all(first >= second for first, second in pairwise(slopes))
