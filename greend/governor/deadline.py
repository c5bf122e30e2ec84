"""A deadline: the highest level at which the steps left are made in the time left."""

from __future__ import annotations

import math
from dataclasses import dataclass

from greend.clock import NS, Instant
from greend.governor.conditions import Conditions
from greend.governor.constraint import Memory
from greend.governor.horizon import horizon
from greend.types import Bound, Rank
from greend.units import format_duration, format_power, significant

Z = 1.0
"""A level is gone up to when it suffices with steps one standard deviation longer than expected."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The job's last step is to be made by `at_wall_ns`, a moment on people's clock."""

    at_wall_ns: int
    power_w: float | None = None
    """The power that the job is capped at: it makes a step of e joules no sooner than every e / power_w."""
    by: str = "deadline"

    def bound(self, conditions: Conditions, memory: Memory, now: Instant) -> tuple[Bound | None, Memory]:
        """Return the highest level that is quick enough, and what is short where none is.

        A level up to the one in force has to suffice as it is expected to, a higher one with a margin.
        """
        left_s = (self.at_wall_ns - now.wall_ns) / NS
        top = conditions.profile.top
        plan = horizon(conditions.steps_total, conditions.steps_before, conditions.steps_done)
        due = f"{format_duration(max(left_s, 0.0))} are left"
        if plan is None:
            words = f"{due}, and the number of steps is unknown (give it with --steps)"
            return Bound(self.by, Rank.BUDGET, top, words), None
        expected_s = self._step_s(conditions, 0.0)
        if expected_s is None:
            return Bound(self.by, Rank.BUDGET, top, f"{due}; measuring how long a step takes"), None
        steps = max(plan.steps - conditions.steps_done, 0.0)
        current = conditions.level if conditions.level is not None else top
        level = next((k for k in range(top, 0, -1) if steps * expected_s[k] <= left_s), 0)
        if level > current:
            late_s = self._step_s(conditions, Z) or expected_s
            level = next((k for k in range(level, current, -1) if steps * late_s[k] <= left_s), current)
        needs_s = steps * expected_s[level]
        figures = {"left_s": left_s, "steps_left": steps, "needs_s": needs_s}
        figures |= {f"step_s_{k}": value for k, value in enumerate(expected_s)}
        feasible = needs_s <= left_s or steps == 0
        if feasible:
            words = self._words(left_s, steps, level, expected_s)
        else:
            words = self._late_words(left_s, steps, expected_s, self._step_s(conditions, Z) or expected_s)
        if not plan.said:
            words += f" ({plan.words})"
        return Bound(self.by, Rank.BUDGET, level, words, feasible=feasible, figures=figures), None

    def _step_s(self, conditions: Conditions, z: float) -> tuple[float, ...] | None:
        step_s, step_j = conditions.profile.step_s(z), conditions.profile.step_j(z)
        if step_s is None or self.power_w is None or step_j is None:
            return step_s
        return tuple(max(s, j / self.power_w) for s, j in zip(step_s, step_j, strict=True))

    def _words(self, left_s: float, steps: float, level: int, step_s: tuple[float, ...]) -> str:
        each = significant(left_s / steps if steps > 0 else math.inf)
        takes = f"level {level} takes {significant(step_s[level])} s{self._capped()}"
        words = f"{_rest(left_s, steps)} is {each} s each; {takes}"
        above = level + 1
        return f"{words}, level {above} {significant(step_s[above])} s" if above < len(step_s) else words

    def _late_words(
        self, left_s: float, steps: float, step_s: tuple[float, ...], late_s: tuple[float, ...]
    ) -> str:
        low, high = format_duration(steps * step_s[0]), format_duration(steps * late_s[0])
        needs = f"level 0 needs {low if low == high else f'{low} to {high}'}{self._capped()}"
        late = format_duration(steps * step_s[0] - left_s)
        return f"the deadline cannot be met: {_rest(left_s, steps)}, {needs} and ends {late} late"

    def _capped(self) -> str:
        return f" under {format_power(self.power_w)}" if self.power_w is not None else ""


def _rest(left_s: float, steps: float) -> str:
    return f"{format_duration(max(left_s, 0.0))} for {steps:.0f} steps left"
