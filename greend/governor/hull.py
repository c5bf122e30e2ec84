"""Which levels are worth their joules: the upper concave hull of quality over energy, and mixes on it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mix:
    """Two neighbours on the hull whose mean cost is what a step may use."""

    low: int
    high: int
    share: float
    """Share of the steps to be made at `high`."""


def quality_by_cost(costs: Sequence[float]) -> tuple[float, ...]:
    """Return what a step is taken to be worth at each level, where the user gave no figures.

    The square root of the estimated cost: returns diminish, and the untouched model counts 1. Of
    all that such a curve says only its concavity matters, since the mix follows from the joules;
    a level is passed over only where it costs far more than its share of the work.
    """
    return tuple(math.sqrt(max(cost, 0.0) / costs[-1]) for cost in costs)


def upper_hull(
    step_j: Sequence[float], quality: Sequence[float], dead: Collection[int] = ()
) -> tuple[int, ...]:
    """Return the levels on the upper concave hull of (joules, quality), least joules first.

    The least and the top level stand at its ends; dead levels and those under a chord are left out.
    """
    hull: list[int] = []
    for level in range(len(step_j)):
        if level in dead:
            continue
        while hull and step_j[hull[-1]] >= step_j[level]:
            hull.pop()
        while len(hull) > 1 and _slope(hull[-2], hull[-1], step_j, quality) <= _slope(
            hull[-1], level, step_j, quality
        ):
            hull.pop()
        hull.append(level)
    return tuple(hull)


def mix(hull: Sequence[int], step_j: Sequence[float], per_step_j: float) -> Mix:
    """Return the mix of neighbours on the hull that uses `per_step_j` a step on average.

    Less than the least costs gives the least alone, more than the top costs the top alone.
    """
    costs = [step_j[level] for level in hull]
    if per_step_j <= costs[0]:
        return Mix(hull[0], hull[0], 0.0)
    if per_step_j >= costs[-1]:
        return Mix(hull[-1], hull[-1], 1.0)
    above = bisect_right(costs, per_step_j)
    low, high = hull[above - 1], hull[above]
    return Mix(low, high, (per_step_j - step_j[low]) / (step_j[high] - step_j[low]))


def _slope(a: int, b: int, step_j: Sequence[float], quality: Sequence[float]) -> float:
    return (quality[b] - quality[a]) / (step_j[b] - step_j[a])
