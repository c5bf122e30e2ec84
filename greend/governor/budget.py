"""An energy budget over a job with a known number of steps: which level the joules left can carry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

END_MARGIN_STEPS = 2.0
"""Steps at the top kept back to the end: between two ticks the count of steps is known to about two."""

LAST_TRY_SHARE = 0.05
"""With a smaller share of the steps left, no level is tried any more: a wrong try could not be made up."""
FINISH_NEAR = 1.1
"""The finish counts as begun this much ahead of its share of the steps..."""
FINISH_BEGUN = 1.5
"""...and this much ahead where the top is already in force."""


@dataclass(frozen=True, slots=True)
class EnergyBudget:
    """What one job may use, from its process's start to its end."""

    budget_j: float
    tail_j: float = 0.0
    """Expected use after the last step (evaluation, checkpoint), from the last run of the same job."""
    reserve_share: float = 0.02
    """Share of the budget kept back for errors of the estimate; it shrinks as the steps are done."""
    finish_share: float = 0.3
    """Share of the steps to be made at the top at the end, where the top is what is delivered."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The limit that a budget puts on the level, and the figures behind it."""

    top: int
    level: int
    """The highest level that the steps left can be made at."""
    hopeful: bool
    """The level fits only if it costs as little as it well may: it is worth a try."""
    may_try: bool
    """Enough steps are left to make up for a level that turns out too dear."""
    keep: bool
    """The level in force still fits when the reserve is counted in: no need to go lower."""
    feasible: bool
    left_j: float
    """Joules that may still go into steps, the reserve not counted."""
    steps_left: float
    finish_steps: float
    """Steps at the end that are kept for the top."""
    short_j: float = 0.0
    """When not feasible: joules missing even at level 0."""

    @property
    def step_j(self) -> float:
        """Joules a step may use from here on."""
        return self.left_j / self.steps_left if self.steps_left > 0 else math.inf


def bound(
    budget: EnergyBudget,
    step_j: Sequence[float],
    spent_j: float,
    steps_done: float,
    steps_total: float,
    current: int,
    hopeful_j: Sequence[float] | None = None,
) -> Bound:
    """Return the level that the joules left can carry to the last step.

    `step_j` holds joules per step by level, least first, not falling; `hopeful_j` what they may well
    be, by which a level above the current one is worth a try. The plan is low first and the
    top last: the level chosen now is the highest one that can be held until the finish, and the
    finish runs at the top. With each step at a level below what a step may use, the rest may use
    more, so that the level rises by itself.
    """
    top = len(step_j) - 1
    left = max(steps_total - steps_done, 0.0)
    hard_j = budget.budget_j - budget.tail_j - spent_j
    reserve_j = budget.reserve_share * budget.budget_j * (left / steps_total if steps_total > 0 else 0.0)
    safe_j = hard_j - max(reserve_j, END_MARGIN_STEPS * step_j[top])
    finish = _finish(budget, step_j, safe_j, left, steps_total, current)

    may_try = left > LAST_TRY_SHARE * steps_total

    def needs_j(level: int, costs_j: Sequence[float] = step_j) -> float:
        last_j = step_j[top] if level < top and finish < left else costs_j[level]
        return costs_j[level] * (left - finish) + last_j * finish

    def may_have(level: int) -> bool:
        try_it = hopeful_j is not None and level > current and may_try
        return needs_j(level, hopeful_j if hopeful_j is not None and try_it else step_j) <= safe_j

    level = next((k for k in range(top, 0, -1) if may_have(k)), 0)
    keep = needs_j(current) <= hard_j - step_j[top] * END_MARGIN_STEPS / 2
    short_j = step_j[0] * left - hard_j
    hopeful = level > 0 and needs_j(level) > safe_j
    return Bound(top, level, hopeful, may_try, keep, short_j <= 0, safe_j, left, finish, max(short_j, 0.0))


def _finish(
    budget: EnergyBudget, step_j: Sequence[float], safe_j: float, left: float, total: float, current: int
) -> float:
    """Steps at the end that are kept for the top: the share wanted, or as many as can be paid.

    Within the finish, or just before it, it is all that is left, and one level is chosen for all of
    it: to dive to the least level so that the very last steps be at the top would gain nothing.
    """
    wanted = math.ceil(budget.finish_share * total)
    at_top = current == len(step_j) - 1
    if left <= wanted * (FINISH_BEGUN if at_top else FINISH_NEAR):
        return left
    gap_j = step_j[-1] - step_j[0]
    payable = (safe_j - step_j[0] * left) / gap_j if gap_j > 0 else math.inf
    return min(wanted, max(0.0, payable))
