"""Blocks of two levels in turn."""

from dataclasses import replace
from itertools import pairwise

import pytest

from greend.governor.hull import Mix
from greend.governor.mixing import BLOCKS, Block, Stand, block_steps, follow

STEP_J = (1.0, 2.0, 4.0)
HALF = Mix(0, 1, 0.5)


def run(block: Block, spent_j: float, steps: int, mix: Mix, costs_j=STEP_J) -> tuple[list[int], float]:
    """Make the steps of a block one by one; return the levels and what they used."""
    levels = []
    for step in range(steps):
        stand = Stand(block.start_step + step, spent_j, levels[-1] if levels else block.level, 1.5)
        block = follow(block, mix, costs_j, stand, block.steps)
        levels.append(block.level)
        spent_j += costs_j[block.level]
    return levels, spent_j


def test_a_block_is_a_part_of_the_job_but_long_against_a_change():
    assert block_steps(2400, 0.0, (0.5, 1.0)) == 2400 / BLOCKS
    assert block_steps(2400, 4.0, (0.5, 1.0)) == 160
    assert block_steps(10, 0.0, None) == 1


@pytest.mark.parametrize(("current", "first"), [(0, 0), (1, 1), (2, 0)])
def test_a_block_begins_with_the_level_in_force_so_that_it_has_one_change(current, first):
    block = follow(None, HALF, STEP_J, Stand(100, 500.0, current, 1.5), 20)

    levels, _ = run(block, 500.0, 20, HALF)

    assert levels[0] == first
    assert sorted(levels) == [0] * 10 + [1] * 10
    assert sum(a != b for a, b in pairwise(levels)) == 1


def test_what_the_steps_really_cost_moves_the_turn():
    block = follow(None, HALF, STEP_J, Stand(0, 0.0, 0, 1.5), 20)

    cheap, used_j = run(block, 0.0, 20, HALF, costs_j=(0.8, 2.0, 4.0))

    assert cheap.count(1) > 10
    assert used_j <= 30 + 2


def test_a_block_that_is_over_is_followed_by_the_next_at_what_a_step_may_use_then():
    old = follow(None, HALF, STEP_J, Stand(0, 0.0, 0, 1.5), 20)

    new = follow(old, Mix(1, 2, 0.1), STEP_J, Stand(20, 30.0, 1, 2.2), 25)

    assert (new.low, new.high, new.start_step, new.steps) == (1, 2, 20, 25)
    assert new.allowed_j == pytest.approx(55)


def test_a_plan_that_is_clearly_off_is_dropped_half_way_and_one_that_is_hardly_off_is_not():
    block = follow(None, HALF, STEP_J, Stand(0, 0.0, 0, 1.5), 20)
    above = Mix(1, 2, 0.02)

    assert follow(block, above, STEP_J, Stand(5, 5.0, 0, 2.02), 20) == block
    assert follow(block, above, STEP_J, Stand(5, 5.0, 0, 2.1), 20).high == 2


def test_a_turned_block_stays_turned():
    block = replace(follow(None, HALF, STEP_J, Stand(0, 0.0, 0, 1.5), 20), turned=True)

    assert follow(block, HALF, STEP_J, Stand(15, 10.0, 0, 1.5), 20) is block
