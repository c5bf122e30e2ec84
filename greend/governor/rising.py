"""The order for training: low first and the top last, with the level rising by what was saved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

LAST_TRY_SHARE = 0.05
"""With a smaller share of the steps left, no level is tried any more: a wrong try could not be made up."""
FINISH_NEAR = 1.1
"""The finish counts as begun this much ahead of its share of the steps..."""
FINISH_BEGUN = 1.5
"""...and this much ahead where the top is already in force."""

BRIEF_SHARE = 0.02
"""A rise that lasts for a smaller share of the steps was a try that failed..."""
WAIT_SHARE, MOST_WAIT_SHARE = 0.005, 0.05
"""...and the next one waits for this share of them, twice as long after each further one, up to the other:
where a step takes as long as a turn, tries in vain came to 5 % of a budget."""


@dataclass(frozen=True, slots=True)
class Tries:
    """Since when the level is what it is, and from which step on a higher one may be tried again."""

    level: int = -1
    since_step: float = 0.0
    wait_steps: float = 0.0
    from_step: float = 0.0

    def seen(self, level: int, done: float, total: float) -> Tries:
        """Return what is known of tries now that a level is in force."""
        if level > self.level:
            return replace(self, level=level, since_step=done)
        if level == self.level:
            return self
        wait_steps = 0.0
        if done - self.since_step < BRIEF_SHARE * total:
            wait_steps = min(max(2 * self.wait_steps, WAIT_SHARE * total), MOST_WAIT_SHARE * total)
        return Tries(level, done, wait_steps, done + wait_steps)


@dataclass(frozen=True, slots=True)
class Means:
    """What there is to spend, and on how many steps."""

    safe_j: float
    """Joules that may still go into steps, the reserve not counted."""
    hard_j: float
    """The same with the reserve counted in, less a step or so that is not yet counted."""
    left: float
    """Steps left."""
    total: float
    finish_share: float
    """Share of all steps to be made at the top at the end."""


@dataclass(frozen=True, slots=True)
class Rising:
    """The level that the joules left can carry, and the figures behind it."""

    level: int
    """The highest level that the steps left can be made at."""
    hopeful: bool
    """The level fits only if it costs as little as it well may: it is worth a try."""
    may_try: bool
    """Enough steps are left to make up for a level that turns out too dear."""
    keep: bool
    """The level in force still fits when the reserve is counted in: no need to go lower."""
    finish_steps: float
    """Steps at the end that are kept for the top."""


def rise(means: Means, step_j: Sequence[float], hopeful_j: Sequence[float], current: int) -> Rising:
    """Return the highest level that can be held until the finish, with the finish at the top.

    `step_j` holds joules per step by level, least first, not falling; `hopeful_j` what they may well
    be, by which a level above the current one is worth a try. With each step at a level below what a
    step may use, the rest may use more, so that the level rises by itself.
    """
    top = len(step_j) - 1
    finish = _finish(means, step_j, current)
    may_try = means.left > LAST_TRY_SHARE * means.total

    def needs_j(level: int, costs_j: Sequence[float] = step_j) -> float:
        last_j = step_j[top] if level < top and finish < means.left else costs_j[level]
        return costs_j[level] * (means.left - finish) + last_j * finish

    def may_have(level: int) -> bool:
        return needs_j(level, hopeful_j if level > current and may_try else step_j) <= means.safe_j

    level = next((k for k in range(top, 0, -1) if may_have(k)), 0)
    hopeful = level > 0 and needs_j(level) > means.safe_j
    return Rising(level, hopeful, may_try, needs_j(current) <= means.hard_j, finish)


def _finish(means: Means, step_j: Sequence[float], current: int) -> float:
    """Steps at the end that are kept for the top: the share wanted, or as many as can be paid.

    Within the finish, or just before it, it is all that is left, and one level is chosen for all of
    it: to dive to the least level so that the very last steps be at the top would gain nothing.
    """
    wanted = math.ceil(means.finish_share * means.total)
    at_top = current == len(step_j) - 1
    if means.left <= wanted * (FINISH_BEGUN if at_top else FINISH_NEAR):
        return means.left
    gap_j = step_j[-1] - step_j[0]
    payable = (means.safe_j - step_j[0] * means.left) / gap_j if gap_j > 0 else math.inf
    return min(wanted, max(0.0, payable))
