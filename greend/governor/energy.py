"""The energy budget of a job: which level the joules left can carry to the last step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from greend.clock import Instant
from greend.governor import feasibility, hull, mixing, rising
from greend.governor.conditions import Conditions
from greend.governor.constraint import Memory
from greend.governor.horizon import Horizon, horizon
from greend.governor.profile import KNOWN_STEPS
from greend.types import Action, Bound, Rank
from greend.units import format_energy, significant

END_MARGIN_STEPS = 2.0
"""Steps at the top kept back to the end: between two ticks the count of steps is known to about two."""
UNKNOWN_STEPS_SHARE = 0.8
"""With nothing known of the number of steps, the share of the budget that is spent at the top."""
SOFT_LANDING = 1.02
"""With joules for no more than so many times the steps left at level 0, they are made at level 0."""
PROBE_SHARE = 0.3
"""With at least this share of the steps left, a level between the two in turn is tried once..."""
PROBE_COST = 0.01
"""...if the steps of the try are no more than this share of what is left..."""
PROBE_PATIENCE = 25.0
"""...and given up after so many times the steps that suffice: a rise to it may have to wait."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A level that is run to see what it costs, since a step; and those that told nothing."""

    level: int = -1
    since_step: float = 0.0
    given_up: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class EnergyMemory:
    """What the budget remembers from one turn to the next."""

    bound: Bound | None = None
    short: bool = False
    """That it cannot be met has been said."""
    block: mixing.Block | None = None
    probe: Probe = Probe()
    tries: rising.Tries = field(default_factory=rising.Tries)

    def level(self, otherwise: int) -> int:
        """Return the level that was last allowed."""
        return self.bound.level if self.bound is not None else otherwise


@dataclass(frozen=True, slots=True)
class EnergyBudget:
    """What one job may use, from its process's start to its end. Passed by no more than one step's energy
    unless it is to run on at level 0 when the budget cannot be met."""

    budget_j: float
    reserve_share: float = 0.02
    """Share of the budget kept back for errors of the estimate; it shrinks as the steps are done."""
    finish_share: float = 0.3
    """Share of the steps to be made at the top at the end, where the top is what is delivered."""
    order: str = "rising"
    """`rising`: low first and the top last; `mixed`: the two best levels in turn, for most quality in all."""
    on_infeasible: str = "run_level_0"
    quality: tuple[float, ...] = ()
    """What a step is worth at each level; empty: by its estimated cost, with diminishing returns."""
    by: str = "energy budget"
    rank: Rank = Rank.BUDGET

    def bound(
        self, conditions: Conditions, memory: Memory, now: Instant
    ) -> tuple[Bound | None, EnergyMemory]:
        """Return the highest level that the joules left can carry, and why."""
        before = memory if isinstance(memory, EnergyMemory) else EnergyMemory()
        steps_total = conditions.steps_total
        if steps_total is not None and conditions.steps_done >= steps_total and before.bound is not None:
            return before.bound, before  # the steps are made: what follows them is no longer the level's
        step_j = conditions.profile.step_j()
        if step_j is None:
            return self._say(before, conditions.profile.top, "measuring what a step costs", {})
        plan = horizon(steps_total, conditions.steps_before, conditions.steps_done)
        if plan is None:
            return self._without_steps(conditions, before, step_j)
        verdict = feasibility.judge(
            conditions.profile, conditions.spent_j, conditions.tail_j, self.budget_j,
            conditions.steps_done, plan, before.short,
        )  # fmt: skip
        means = self._means(conditions, step_j, plan)
        figures = _figures(conditions, means, step_j)
        short = verdict is not None and verdict.short
        before = before if before.short == short else replace(before, short=short)
        if verdict is not None:
            figures |= {
                "needs_low_j": verdict.low_j,
                "needs_high_j": verdict.high_j,
                "ends_step": verdict.ends_step,
            }
            if verdict.short:
                return self._say(
                    before, 0, verdict.words(self.on_infeasible), figures, urgent=verdict.sure,
                    feasible=False, action=verdict.action(self.on_infeasible),
                )  # fmt: skip
        if self.order == "mixed":
            return self._mixed(conditions, before, step_j, means, plan, figures)
        return self._rising(conditions, before, step_j, means, plan, figures)

    def _means(self, conditions: Conditions, step_j: tuple[float, ...], plan: Horizon) -> rising.Means:
        left = max(plan.steps - conditions.steps_done, 0.0)
        # A job may outlive the number of steps planned for: up to the most there may be, at level 0.
        beyond_j = step_j[0] * max(plan.most - max(plan.steps, conditions.steps_done), 0.0)
        rest_j = self.budget_j - conditions.tail_j - conditions.spent_j - beyond_j
        reserve_j = self.reserve_share * self.budget_j * (left / plan.steps if plan.steps > 0 else 0.0)
        safe_j = rest_j - max(reserve_j, END_MARGIN_STEPS * step_j[-1])
        hard_j = rest_j - END_MARGIN_STEPS / 2 * step_j[-1]
        # Where the end is not known, a finish at the top might begin too early, or never.
        return rising.Means(safe_j, hard_j, left, plan.steps, self.finish_share if plan.known else 0.0)

    def _rising(
        self,
        conditions: Conditions,
        before: EnergyMemory,
        step_j: tuple[float, ...],
        means: rising.Means,
        plan: Horizon,
        figures: dict[str, float],
    ) -> tuple[Bound, EnergyMemory]:
        profile = conditions.profile
        current = in_force(conditions, before.level(profile.top))
        tries = before.tries.seen(current, conditions.steps_done, means.total)
        hopeful_j = profile.hopeful_step_j() if conditions.steps_done >= tries.from_step else None
        found = rising.rise(means, step_j, hopeful_j or step_j, current)
        level = current if found.level < current and found.keep else profile.alive(found.level)
        # Where the top can be paid for all that is left, waiting would only leave joules unspent; and near
        # the end a level that is too dear could not be made up for.
        urgent = level == profile.top and not found.hopeful if level >= current else not found.may_try
        figures["finish_steps"] = found.finish_steps
        reason = _rising_words(found, level, means, step_j)
        if not plan.said:
            reason += f" ({plan.words})"
        return self._say(replace(before, tries=tries), level, reason, figures, urgent=urgent)

    def _mixed(
        self,
        conditions: Conditions,
        before: EnergyMemory,
        step_j: tuple[float, ...],
        means: rising.Means,
        plan: Horizon,
        figures: dict[str, float],
    ) -> tuple[Bound, EnergyMemory]:
        profile = conditions.profile
        steps = mixing.block_steps(means.total, conditions.switch_s, profile.step_s())
        if means.left <= steps:  # the end is met best by what rises: its turns are paid by what is left
            return self._rising(conditions, before, step_j, replace(means, finish_share=0.0), plan, figures)
        quality = self.quality or hull.quality_by_cost(profile.costs)
        levels = hull.upper_hull(step_j, quality, profile.dead)
        per_step_j = (means.safe_j - means.left / steps * conditions.switch_j) / means.left
        landing = means.safe_j <= SOFT_LANDING * means.left * step_j[levels[0]]
        found = hull.Mix(levels[0], levels[0], 0.0) if landing else hull.mix(levels, step_j, per_step_j)
        current = in_force(conditions, before.level(profile.top))
        stand = mixing.Stand(conditions.steps_done, conditions.spent_j, current, per_step_j)
        probe = _probe(conditions, before.probe, found, current, means)
        if probe.level >= 0:
            reason = f"{_rest(means)}; level {probe.level} is tried to see what it costs"
            return self._say(replace(before, probe=probe), probe.level, reason, figures)
        block = mixing.follow(before.block, found, step_j, stand, steps)
        level = levels[0] if landing else block.level
        reason = _mixed_words(found, level, means, step_j)
        after = replace(before, probe=probe, block=block)
        return self._say(after, level, reason, figures, urgent=landing)

    def _without_steps(
        self, conditions: Conditions, before: EnergyMemory, step_j: tuple[float, ...]
    ) -> tuple[Bound, EnergyMemory]:
        """Spend most of the budget at the top and stretch the rest at level 0: the end is not known."""
        spent_j, top = conditions.spent_j, conditions.profile.top
        figures = {"spent_j": spent_j, "steps_done": conditions.steps_done, "budget_j": self.budget_j}
        share = f"{format_energy(spent_j)} of {format_energy(self.budget_j)} spent"
        unknown = "the number of steps is unknown (give it with --steps)"
        if self.budget_j - spent_j < feasibility.SPENT_STEPS * step_j[0]:
            action = feasibility.ACTIONS[self.on_infeasible]
            reason = f"{share}: the budget is used up, and {unknown}"
            return self._say(before, 0, reason, figures, urgent=True, feasible=False, action=action)
        if spent_j < UNKNOWN_STEPS_SHARE * self.budget_j:
            return self._say(before, top, f"{share}; {unknown}", figures)
        return self._say(before, 0, f"{share}, the rest is stretched; {unknown}", figures)

    def _say(
        self,
        before: EnergyMemory,
        level: int,
        reason: str,
        figures: Mapping[str, float],
        urgent: bool = False,
        feasible: bool = True,
        action: Action = Action.RUN,
    ) -> tuple[Bound, EnergyMemory]:
        bound = Bound(
            self.by, self.rank, level, reason, urgent=urgent, feasible=feasible, action=action,
            figures=dict(figures),
        )  # fmt: skip
        return bound, replace(before, bound=bound)


def _probe(
    conditions: Conditions, before: Probe, found: hull.Mix, current: int, means: rising.Means
) -> Probe:
    """Return the level to be tried, if any: one between the two in turn that was never measured.

    Where the estimate of it is too high it is not on the hull, and would never be run. A try uses no more
    than the mix it stands for, and what it shows is good for the rest of the job.
    """
    profile, done = conditions.profile, conditions.steps_done
    given_up = before.given_up
    if before.level >= 0 and done - before.since_step > PROBE_PATIENCE * KNOWN_STEPS:
        given_up |= {before.level}
    worth = means.left >= PROBE_SHARE * means.total and PROBE_COST * means.left >= KNOWN_STEPS
    unknown = [
        k
        for k in range(found.low + 1, found.high)
        if worth and not profile.known(k) and k not in given_up | conditions.refused
    ]
    if not unknown:
        return Probe(given_up=given_up)
    # Downwards first: a fall may follow soon, a rise has to wait.
    level = max((k for k in unknown if k <= current), default=min(unknown))
    since = before.since_step if level == before.level else done
    return Probe(level, since, given_up)


def in_force(conditions: Conditions, otherwise: int) -> int:
    """Return the level in force, or what was last said where the agent has not yet reported one."""
    return conditions.level if conditions.level is not None else otherwise


def _rising_words(found: rising.Rising, level: int, means: rising.Means, step_j: tuple[float, ...]) -> str:
    top = len(step_j) - 1
    rest = _rest(means)
    costs = f"level {level} costs {step_words(step_j[level])} a step"
    if found.hopeful and level == found.level:
        return f"{rest}; level {level} last cost {step_words(step_j[level])}, worth a try"
    if level == top and found.finish_steps >= means.left:
        return f"finish: {rest}; {costs}"
    if level == top:
        return f"the budget carries the top: {rest}; {costs}"
    kept = f", the last {found.finish_steps:.0f} at the top" if found.finish_steps >= 1 else ""
    return f"{rest}{kept}; {costs}, level {level + 1} {step_words(step_j[level + 1])}"


def _mixed_words(found: hull.Mix, level: int, means: rising.Means, step_j: tuple[float, ...]) -> str:
    rest = _rest(means)
    if found.low == found.high:
        return f"{rest}; level {level} costs {step_words(step_j[level])} a step"
    low, high = step_words(step_j[found.low]), step_words(step_j[found.high])
    pair = f"levels {found.low} and {found.high} ({low} and {high} a step)"
    return f"{rest}; {pair} in turn, {found.share:.0%} of the steps at level {found.high}, now level {level}"


def _rest(means: rising.Means) -> str:
    each = f" is {step_words(means.safe_j / means.left)} each" if means.left > 0 else ""
    return f"{format_energy(max(means.safe_j, 0.0))} for {means.left:.0f} steps left{each}"


def step_words(step_j: float) -> str:
    """Write what a step costs: mJ below a tenth of a joule."""
    return f"{significant(step_j * 1e3)} mJ" if step_j < 0.1 else f"{significant(step_j)} J"


def _figures(conditions: Conditions, means: rising.Means, step_j: tuple[float, ...]) -> dict[str, float]:
    figures = {
        "spent_j": conditions.spent_j,
        "left_j": means.safe_j,
        "steps_done": conditions.steps_done,
        "steps_left": means.left,
    }
    figures |= {f"step_j_{k}": value for k, value in enumerate(step_j)}
    return figures | {f"step_sd_{k}": sd for k, sd in enumerate(conditions.profile.step_sd())}
