"""Budgets in grams of CO2e and in money: joules at the price of their hour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from greend.clock import NS, Instant
from greend.governor import feasibility, hull, mixing
from greend.governor.conditions import Conditions, Hour, Intensity
from greend.governor.constraint import Memory
from greend.governor.energy import EnergyBudget, EnergyMemory, in_force
from greend.governor.horizon import horizon
from greend.governor.shifting import J_PER_KWH, Plan, Work, plan_over
from greend.types import Action, Bound, Rank
from greend.units import significant

WORLD_G_PER_KWH = 442.4
"""Mean of the world's electricity in 2021, where nothing is known: Our World in Data, electricity mix from BP
and Ember (2022), CC BY 4.0."""
ACTUAL_H, FORECAST_H = 2.0, 24.0
"""A figure for now that is older than this, and a forecast older than the other, are not acted on."""


@dataclass(frozen=True, slots=True)
class CarbonMemory:
    """What the budget remembers from one turn to the next."""

    energy: EnergyMemory | None = None
    """Of the energy budget that it comes down to where no forecast is known."""
    block: mixing.Block | None = None
    short: bool = False


@dataclass(frozen=True, slots=True)
class CarbonBudget:
    """What one job may emit, from its process's start to its end, in gCO2e.

    With a forecast (or yesterday's shape) the level is the one that the grams of the hours to come carry;
    with a time by which it has to be done, or when it cannot be met otherwise, the job waits for cleaner
    hours. Without, it is an energy budget at the intensity of now, or at the mean where that is not known.
    """

    budget_g: float
    energy: EnergyBudget = field(default_factory=lambda: EnergyBudget(math.inf))
    """How joules are spent (order, reserve, finish, what follows when short); its budget is not used."""
    mean_g_per_kwh: float = WORLD_G_PER_KWH
    done_by_wall_ns: int | None = None
    by: str = "carbon budget"

    def bound(
        self, conditions: Conditions, memory: Memory, now: Instant
    ) -> tuple[Bound | None, CarbonMemory]:
        """Return the highest level that the grams left can carry in this hour, and why."""
        before = memory if isinstance(memory, CarbonMemory) else CarbonMemory()
        intensity, words = current(conditions.intensity, self.mean_g_per_kwh, now)
        steps = horizon(conditions.steps_total, conditions.steps_before, conditions.steps_done)
        profile = conditions.profile
        step_j, step_s = profile.step_j(), profile.step_s()
        if not intensity.ahead or steps is None or step_j is None or step_s is None:
            return self._as_energy(conditions, before, now, intensity.now_g_per_kwh, words)
        left = max(steps.steps - conditions.steps_done, 0.0)
        if left == 0:
            return self._as_energy(conditions, before, now, intensity.now_g_per_kwh, words)
        quality = self.energy.quality or hull.quality_by_cost(profile.costs)
        work = Work(step_j, step_s, hull.upper_hull(step_j, quality, profile.dead), left)
        tail_g = conditions.tail_j / J_PER_KWH * intensity.now_g_per_kwh
        left_g = self.budget_g - conditions.spent_g - tail_g
        safe_g = left_g - self.energy.reserve_share * self.budget_g * left / steps.steps
        plan = plan_over(intensity.ahead, work, safe_g, self.done_by_wall_ns)
        block_steps = mixing.block_steps(steps.steps, conditions.switch_s, step_s)
        return self._planned(conditions, before, plan, work, left_g, words, block_steps)

    def _planned(
        self,
        conditions: Conditions,
        before: CarbonMemory,
        plan: Plan,
        work: Work,
        left_g: float,
        words: str,
        block_steps: float,
    ) -> tuple[Bound, CarbonMemory]:
        figures = {
            "spent_g": conditions.spent_g,
            "left_g": left_g,
            "plan_g": plan.grams,
            "shifted_g": plan.shifted_g,
            "shrunk_g": plan.shrunk_g,
            "steps_left": work.steps,
            "g_per_kwh": plan.now_g_per_kwh,
        }
        rest = f"{grams(left_g)} for {work.steps:.0f} steps left"
        now_and_mean = (
            f"{significant(plan.now_g_per_kwh)} g/kWh now, {significant(plan.mean_g_per_kwh)} on average"
        )
        ahead = f"{now_and_mean} ({words})"
        saves = f"{grams(plan.shrunk_g)} saved by less work, {grams(plan.shifted_g)} by other hours"
        least = work.levels[0]
        worst = self.energy.on_infeasible
        short = plan.grams > left_g * (feasibility.WITHDRAW if before.short else feasibility.ANNOUNCE)
        if short and left_g < plan.now_g_per_kwh * feasibility.SPENT_STEPS * work.step_j[least] / J_PER_KWH:
            reason = f"{rest}: the budget is used up"
            return self._say(
                least, reason, figures, replace(before, short=True), feasibility.ACTIONS[worst], False
            )
        if short:
            reason = (
                f"the budget cannot be met: needs {grams(plan.grams)} more at level {least}, {rest}; {ahead}"
            )
            return self._say(least, reason, figures, replace(before, short=True), Action.RUN, False)
        before = replace(before, short=False)
        if plan.waits:
            hour = f"waits for an hour of at most {significant(plan.dirtiest_g_per_kwh)} g/kWh"
            return self._say(least, f"{rest}; {ahead}: {hour}; {saves}", figures, before, Action.PAUSE)
        found = hull.mix(work.levels, work.step_j, plan.per_step_j)
        current = in_force(conditions, conditions.profile.top)
        stand = mixing.Stand(conditions.steps_done, conditions.spent_j, current, plan.per_step_j)
        # Shorter blocks towards the end, so that it is met closely.
        block = mixing.follow(
            before.block, found, work.step_j, stand, max(min(block_steps, work.steps / 2), 1.0)
        )
        pair = f"level {block.level}"
        if found.low != found.high:
            pair = f"levels {found.low} and {found.high} in turn, now level {block.level}"
        memory = replace(before, block=block)
        return self._say(block.level, f"{rest}; {ahead}; {pair}; {saves}", figures, memory)

    def _say(
        self,
        level: int,
        reason: str,
        figures: dict[str, float],
        memory: CarbonMemory,
        action: Action = Action.RUN,
        feasible: bool = True,
    ) -> tuple[Bound, CarbonMemory]:
        bound = Bound(self.by, Rank.CARBON, level, reason, feasible=feasible, action=action, figures=figures)
        return bound, memory

    def _as_energy(
        self, conditions: Conditions, before: CarbonMemory, now: Instant, g_per_kwh: float, words: str
    ) -> tuple[Bound | None, CarbonMemory]:
        spent_g = conditions.spent_g
        if conditions.intensity is None:  # nobody counted grams, so that they are the joules' at the mean
            spent_g = max(spent_g, conditions.spent_j * g_per_kwh / J_PER_KWH)
        left_g = self.budget_g - spent_g
        budget_j = conditions.spent_j + left_g / g_per_kwh * J_PER_KWH
        same = replace(self.energy, budget_j=budget_j, by=self.by, rank=Rank.CARBON)
        bound, energy = same.bound(conditions, before.energy, now)
        if bound is not None:
            reason = f"{bound.reason} ({grams(left_g)} left at {words})"
            figures = bound.figures | {
                "spent_g": spent_g,
                "left_g": left_g,
                "g_per_kwh": g_per_kwh,
            }
            bound = replace(bound, reason=reason, figures=figures)
        return bound, replace(before, energy=energy)


@dataclass(frozen=True, slots=True)
class CostBudget:
    """What the electricity of one job may cost, in the currency of the price per kWh."""

    cost: float
    energy: EnergyBudget = field(default_factory=lambda: EnergyBudget(math.inf))
    by: str = "cost budget"

    def bound(self, conditions: Conditions, memory: Memory, now: Instant) -> tuple[Bound | None, Memory]:
        """Return the bound of the joules that the money buys at the price of now."""
        price = conditions.price_per_kwh
        if price is None or not 0 < price < math.inf:
            top = conditions.profile.top
            reason = (
                "no price per kWh is known: set one in the settings, or the budget in money cannot be held"
            )
            return Bound(self.by, Rank.BUDGET, top, reason), memory
        same = replace(self.energy, budget_j=self.cost / price * J_PER_KWH, by=self.by)
        bound, memory = same.bound(conditions, memory, now)
        if bound is not None:
            reason = f"{bound.reason} ({significant(self.cost)} at {significant(price)} per kWh)"
            bound = replace(bound, reason=reason, figures=bound.figures | {"price_per_kwh": price})
        return bound, memory


def current(intensity: Intensity | None, mean_g_per_kwh: float, now: Instant) -> tuple[Intensity, str]:
    """Return the figures that may be acted on, and how they are known.

    What is missing, not a number or too old gives way to the mean, which says nothing of better hours.
    """
    mean = f"a mean of {significant(mean_g_per_kwh)} g/kWh"
    if intensity is None:
        return Intensity(mean_g_per_kwh), f"{mean}, as no intensity is known"
    age_h = (now.wall_ns - intensity.known_wall_ns) / NS / 3600
    ahead = tuple(
        hour for hour in intensity.ahead if _sound(hour.g_per_kwh) and hour.end_wall_ns > now.wall_ns
    )
    source = intensity.source or "forecast"
    if age_h > (FORECAST_H if ahead else ACTUAL_H):
        return Intensity(mean_g_per_kwh), f"{mean}, as {source} is {age_h:.0f} h old"
    if not _sound(intensity.now_g_per_kwh):
        return Intensity(mean_g_per_kwh), f"{mean}, as {source} has no figure for now"
    now_hour = _with_now(ahead, intensity.now_g_per_kwh, now)
    return replace(
        intensity, ahead=now_hour
    ), source if ahead else f"{significant(intensity.now_g_per_kwh)} g/kWh"


def grams(mass_g: float) -> str:
    """Write a mass for people."""
    return f"{significant(mass_g / 1e3)} kg" if abs(mass_g) >= 1e4 else f"{significant(mass_g)} g"


def _sound(g_per_kwh: float) -> bool:
    return 0 < g_per_kwh < math.inf


def _with_now(ahead: Sequence[Hour], now_g_per_kwh: float, now: Instant) -> tuple[Hour, ...]:
    """Return the hours from now on, the present one at what is measured and not at what was forecast."""
    hours = sorted(ahead, key=lambda hour: hour.start_wall_ns)
    if not hours:
        return ()
    first = hours[0]
    if first.start_wall_ns > now.wall_ns:
        return (Hour(now.wall_ns, first.start_wall_ns, now_g_per_kwh), *hours)
    return (Hour(now.wall_ns, first.end_wall_ns, now_g_per_kwh), *hours[1:])
