"""How many steps a job will make: known, or judged from earlier runs of the same command."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

PLAN_QUANTILE = 0.85
"""Plan for a job that is longer than so many of its like: too short a guess stops it, too long a one
only leaves joules unspent."""
KEEP_QUANTILE = 0.98
"""Up to this length of job the steps can still be made at level 0. Of 40 jobs whose length was drawn as that
of ten earlier runs none stopped early, with 63 % of the budget used; at 0.995 it was 58 %."""
SPREAD = 0.3
"""Standard deviation of log steps between runs of one command that is believed before any is seen..."""
BELIEF = 1.0
"""...with the weight of so many runs."""
LEAST_AHEAD = 0.02
"""However long the job has run, it is not believed to be nearer to its end than this share of itself."""
LEAST_CHANCE = 1e-9
"""A job that is rarer than this says that its like are another job's."""
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Horizon:
    """Steps in all to plan for, and how many there may be at most."""

    steps: float
    most: float
    said: bool
    """Somebody gave the number: nothing is sure without."""
    words: str
    """How it is known, for the reason."""
    agreed: bool = False
    """Nobody gave it, but all earlier runs made as many."""

    @property
    def known(self) -> bool:
        """Whether there is one number to plan for, and no spread about it."""
        return self.said or self.agreed


def horizon(steps_total: int | None, steps_before: Sequence[int], done: float) -> Horizon | None:
    """Return the horizon of a job that has made `done` steps; None: nothing is known of its length.

    Without a number of steps, lengths of runs are taken as lognormal, and the quantiles are of those
    that are longer than the steps already made: the horizon moves on while the job outlives its like.
    Runs that all made the same number say that the command fixes it, one run too: most loops count to a
    number of their own, and to plan such a job for half as many steps again left 41 % of its budget unspent.
    """
    if steps_total is not None:
        return Horizon(steps_total, steps_total, True, f"{steps_total} steps")
    logs = [math.log(steps) for steps in steps_before if steps > 0]
    if not logs:
        return None
    runs = "the last run" if len(logs) == 1 else f"the last {len(logs)} runs"
    same = next(steps for steps in steps_before if steps > 0)
    if done <= same * (1 + LEAST_AHEAD) and all(steps == same for steps in steps_before if steps > 0):
        # Between two reports the count is carried forward, also beyond a last step that nobody has announced.
        steps = max(same, done + 1.0)
        return Horizon(steps, steps, False, f"{same} steps, as {runs}", agreed=True)
    mean = fmean(logs)
    around = math.fsum((value - mean) ** 2 for value in logs)
    count = len(logs)
    variance = (BELIEF * SPREAD**2 + around) / (BELIEF + count - 1)
    sd = math.sqrt(variance * (1 + 1 / count))
    steps, most = (_longer_than(done, mean, sd, share) for share in (PLAN_QUANTILE, KEEP_QUANTILE))
    return Horizon(steps, most, False, f"about {steps:.0f} steps, judged by {runs}")


def _longer_than(done: float, mean: float, sd: float, share: float) -> float:
    """Return the quantile `share` of a lognormal length, given that it is more than `done`."""
    beyond = 1.0 if done <= 0 else max(_NORMAL.cdf((mean - math.log(done)) / sd), LEAST_CHANCE)
    # The upper tail by symmetry: 1 - rest would round to 1.
    return max(math.exp(mean - sd * _NORMAL.inv_cdf(beyond * (1 - share))), done * (1 + LEAST_AHEAD))
