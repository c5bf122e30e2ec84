"""Whether a budget can be met at all, told early and as an interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

from greend.governor.horizon import Horizon
from greend.governor.profile import LevelProfile
from greend.types import Action
from greend.units import format_energy

Z95 = 1.96
CHEAPER_SD, DEARER_SD = 0.03, 0.1
"""By how much the mean cost of the steps left may differ from today's, over a whole run. It rises more
often than it falls: a machine warms up, and neighbours come to one that is quiet enough to start on."""
ANNOUNCE, WITHDRAW = 1.005, 0.98
"""A budget is said to be short when the need expected is this much of it; no more when it is below that."""
UNMEASURED_SHARE = 0.05
"""After this share of the steps it is said even where level 0 could not be measured."""
SPENT_STEPS = 2.0
"""With joules left for fewer steps than this the budget counts as spent: the next turn could pass it."""

ACTIONS = {"run_level_0": Action.RUN, "pause": Action.PAUSE, "stop_at_checkpoint": Action.STOP}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the whole job needs when all that is left runs at level 0, against what is given."""

    low_j: float
    high_j: float
    """95 % interval of the need, from the job's start to its end."""
    given_j: float
    ends_step: float
    """The step at which the joules end at level 0."""
    steps: float
    short: bool
    """It is expected not to suffice."""
    sure: bool
    """It does not suffice even when all goes well, or nothing is left."""

    def action(self, on_infeasible: str) -> Action:
        """Return what the job is to do; what cannot be undone waits until the verdict is sure."""
        return ACTIONS[on_infeasible] if self.short and self.sure else Action.RUN

    def words(self, on_infeasible: str) -> str:
        """Say it with the figures and what follows."""
        needs = f"needs {_range(self.low_j, self.high_j)}, given {format_energy(self.given_j)}"
        ends = f"level 0 ends at step {_spaced(self.ends_step)} of {_spaced(self.steps)}"
        follows = {
            "run_level_0": "it runs on at level 0",
            "pause": "paused" if self.sure else "at level 0 now, paused once that is sure",
            "stop_at_checkpoint": (
                "to stop at the next checkpoint" if self.sure else "at level 0 now, stopped once that is sure"
            ),
        }[on_infeasible]
        return f"the budget cannot be met: {needs}; {ends}; {follows}"


def judge(
    profile: LevelProfile,
    spent_j: float,
    tail_j: float,
    given_j: float,
    done: float,
    horizon: Horizon,
    announced: bool,
) -> Verdict | None:
    """Return the verdict on a budget; None while it is not known what a step costs.

    Before level 0 was measured itself (it is run when the first figures say that joules may be short)
    nothing is said, so that the interval is as narrow as it can be.
    """
    step_j = profile.step_j()
    if step_j is None:
        return None
    left = max(horizon.steps - done, 0.0)
    ahead = left / horizon.steps if horizon.steps > 0 else 0.0
    sd = profile.step_sd()[0]
    rest_j = step_j[0] * left
    used_j = spent_j + tail_j
    # A cost that wanders goes as far as the root of the way: a quarter of a run drifts half as far.
    low_j = used_j + rest_j * math.exp(-Z95 * math.hypot(sd, CHEAPER_SD * math.sqrt(ahead)))
    high_j = used_j + rest_j * math.exp(Z95 * math.hypot(sd, DEARER_SD * math.sqrt(ahead)))
    left_j = given_j - used_j
    spent = left > 0 and left_j < SPENT_STEPS * step_j[0]
    # A job whose length is only judged may end at any step: it is not short for sure before all is spent.
    sure = (low_j > given_j and horizon.said) or spent
    expected = used_j + rest_j > given_j * (WITHDRAW if announced else ANNOUNCE)
    # Level 0 is being run when joules look short, and measured within seconds, unless it is refused.
    measured = profile.known(0) or announced or done > UNMEASURED_SHARE * horizon.steps
    short = left > 0 and ((measured and (expected or sure)) or spent)
    ends = done + max(left_j, 0.0) / step_j[0] if step_j[0] > 0 else horizon.steps
    return Verdict(low_j, high_j, given_j, min(ends, horizon.steps), horizon.steps, short, sure)


def _range(low_j: float, high_j: float) -> str:
    """Both ends in one unit: `1.90-2.20 MJ`."""
    low, high = format_energy(low_j), format_energy(high_j)
    low_figure, low_unit = low.split(" ")
    high_figure, high_unit = high.split(" ")
    if low_unit == high_unit:
        return f"{low_figure}–{high_figure} {high_unit}"
    return f"{low} – {high}"


def _spaced(step: float) -> str:
    return f"{round(step):,}".replace(",", " ")
