"""What a resource level means: a share of the cost, and the widths that bring it about."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from greend_agent.knobs.width import Side, Width
from greend_agent.levels import LEAST, Work, solve


def hidden(width: int) -> Width:
    weight = torch.empty(3, width)
    return Width("ffn", "a -> b", width, (), (Side(weight, 1),), ())


def ffn(width: int, rest: float = 0.0):
    """Two layers around one hidden width, and something else that costs `rest` as much."""
    return [Work(1.0, None, (0,)), Work(1.0, None, (0,))], 2.0 * (1 + rest)


def test_levels_are_spread_evenly_over_the_cost():
    work, total = ffn(1024)

    table = solve([hidden(1024)], work, total, 4)

    assert table.costs == pytest.approx((0.25, 0.5, 0.75, 1.0), abs=0.01)
    assert table.counts == ((256,), (512,), (768,), (1024,))


def test_where_the_rest_of_the_model_costs_much_levels_are_spread_above_the_floor():
    work, total = ffn(1024, rest=1.0)

    table = solve([hidden(1024)], work, total, 4)

    floor = 0.5 + 0.5 * LEAST
    assert table.costs == pytest.approx([floor + (1 - floor) * k / 3 for k in range(4)], abs=0.01)


def test_a_width_that_hardly_matters_makes_no_level():
    work, total = ffn(64, rest=500.0)

    assert solve([hidden(64)], work, total, 4).costs == (1.0,)


def test_a_model_without_a_hidden_width_has_one_level():
    assert solve([], [], 10.0, 4).costs == (1.0,)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=4), st.integers(1, 8), st.floats(0, 3))
def test_levels_rise_strictly_and_lie_within_each_other(widths, levels, rest):
    work = [w for g in range(len(widths)) for w in (Work(1.0, None, (g,)), Work(1.0, None, (g,)))]

    table = solve([hidden(w) for w in widths], work, 2.0 * len(widths) * (1 + rest), levels)

    assert 1 <= len(table) <= max(levels, 1)
    assert table.counts[-1] == tuple(widths)
    assert table.costs[-1] == 1.0
    for low, high in zip(table.counts, table.counts[1:], strict=False):
        assert low != high
        assert all(1 <= a <= b for a, b in zip(low, high, strict=True))
    assert all(low < high for low, high in zip(table.costs, table.costs[1:], strict=False))
    assert table.costs[0] > 0


@pytest.mark.parametrize(
    ("width", "levels", "counts"),
    [
        (64, 4, (16, 32, 48, 64)),  # multiples of what matrix kernels like
        (12, 4, (4, 6, 10, 12)),  # or of the most that leaves each level a width of its own
        (7, 4, (2, 4, 5, 7)),
        (2, 4, (2,)),  # never one unit
        (64, 1, (64,)),
    ],
)
def test_widths_are_multiples_where_that_leaves_each_level_its_own(width, levels, counts):
    work, total = ffn(width)

    assert tuple(c for (c,) in solve([hidden(width)], work, total, levels).counts) == counts
