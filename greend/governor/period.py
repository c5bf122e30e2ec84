"""The budget of a day or a month for all jobs of a machine, shared equally among those that live."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from greend.clock import NS, Instant
from greend.governor.carbon import WORLD_G_PER_KWH, current, grams
from greend.governor.conditions import Conditions
from greend.governor.constraint import Memory
from greend.governor.energy import EnergyBudget
from greend.governor.shifting import J_PER_KWH
from greend.types import Action, Bound, Rank
from greend.units import format_duration, format_energy, format_power, significant


@dataclass(frozen=True, slots=True)
class PeriodBudget:
    """What all jobs together may use until the period ends: joules, grams at today's intensity, or money."""

    period: str
    """`day` or `month`: which of `Conditions.spent_in` counts."""
    ends_wall_ns: int
    energy_j: float | None = None
    carbon_g: float | None = None
    cost: float | None = None
    energy: EnergyBudget = field(default_factory=lambda: EnergyBudget(math.inf))
    """How a job spends its share of it; its budget is not used."""
    mean_g_per_kwh: float = WORLD_G_PER_KWH

    @property
    def by(self) -> str:
        """What it is called in decisions: `day's energy budget`."""
        kind = "energy" if self.energy_j is not None else "carbon" if self.carbon_g is not None else "cost"
        return f"{self.period}'s {kind} budget"

    def bound(self, conditions: Conditions, memory: Memory, now: Instant) -> tuple[Bound | None, Memory]:
        """Return the level that the job's equal share can carry, or the power where its end is not known.

        What a job does not need is shared again at the next turn, as all joules are counted together.
        """
        given_j, words = self._given(conditions, now)
        top = conditions.profile.top
        if given_j is None:
            return Bound(self.by, Rank.BUDGET, top, words), memory
        spent_j = conditions.spent_in.get(self.period, 0.0)
        left_j = given_j - spent_j
        share_j = left_j / max(conditions.sharing, 1)
        left_s = (self.ends_wall_ns - now.wall_ns) / NS
        rest = f"{format_energy(max(left_j, 0.0))} of {words} left for {format_duration(max(left_s, 0.0))}"
        rest += f" among {conditions.sharing} jobs" if conditions.sharing > 1 else ""
        figures = {"given_j": given_j, "spent_in_period_j": spent_j, "share_j": share_j, "left_s": left_s}
        if left_s <= 0:
            return None, memory  # the next period has begun, and its budget comes with it
        step_j, step_s = conditions.profile.step_j(), conditions.profile.step_s()
        if left_j <= 0 or (step_j is not None and share_j < step_j[0]):
            ends = datetime.fromtimestamp(self.ends_wall_ns / NS, UTC)
            reason = f"{words} for this {self.period} is used up: paused until {ends:%Y-%m-%d %H:%M} UTC"
            return self._say(0, reason, figures, Action.PAUSE), memory
        total, done = conditions.steps_total, conditions.steps_done
        if step_j is None:
            return self._say(top, f"measuring what a step costs; {rest}", figures), memory
        ends_in_time = step_s is None or (total is not None and (total - done) * step_s[top] <= left_s)
        if total is not None and ends_in_time:
            same = replace(self.energy, budget_j=conditions.spent_j + share_j, by=self.by)
            bound, memory = same.bound(conditions, memory, now)
            if bound is not None:
                bound = replace(bound, reason=f"{bound.reason} ({rest})", figures=bound.figures | figures)
            return bound, memory
        # What goes on for longer than the period, or nobody knows how long, gets its share evenly.
        power_w = share_j / left_s
        top_w = step_j[top] / step_s[top] if step_s is not None else math.inf
        if power_w >= top_w:
            return self._say(
                top, f"{rest}: {format_power(power_w)} for the job is more than it takes", figures
            ), memory
        reason = f"{rest}: {format_power(power_w)} on average for the job"
        bound = self._say(top, reason, figures | {"power_w": power_w})
        return replace(bound, power_w=power_w), memory

    def _given(self, conditions: Conditions, now: Instant) -> tuple[float | None, str]:
        """Return the budget in joules, None where it cannot be reckoned; and what it is in words."""
        if self.energy_j is not None:
            return self.energy_j, format_energy(self.energy_j)
        if self.carbon_g is not None:
            intensity, words = current(conditions.intensity, self.mean_g_per_kwh, now)
            return self.carbon_g / intensity.now_g_per_kwh * J_PER_KWH, f"{grams(self.carbon_g)} ({words})"
        price = conditions.price_per_kwh
        if self.cost is None or price is None or not 0 < price < math.inf:
            return (
                None,
                "no price per kWh is known: set one in the settings, or a budget in money cannot be held",
            )
        return self.cost / price * J_PER_KWH, f"{significant(self.cost)} at {significant(price)} per kWh"

    def _say(self, level: int, reason: str, figures: dict[str, float], action: Action = Action.RUN) -> Bound:
        spent = action is not Action.RUN
        return Bound(
            self.by,
            Rank.BUDGET,
            level,
            reason,
            urgent=spent,
            feasible=not spent,
            action=action,
            figures=figures,
        )
