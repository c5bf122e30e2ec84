"""All bounds at once: the least of them holds, and a level changes neither too often nor in vain (pure)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from greend.governor.conditions import Conditions
from greend.governor.policy import Policy
from greend.types import Action, Bound, Rank

SWITCH_TIMES = 20.0
"""A level is kept for so many times of what a change takes, so that changes take at most a twentieth."""
SHORT_SHARE = 0.02
"""A rise waits no longer than for this share of a job's steps: a short job would wait through all of it."""
WORTH = 2.0
"""A rise has to bring so many times of what the change itself costs."""

_SEVERITY = {Action.STOP: 0, Action.PAUSE: 1, Action.RUN: 2}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all bounds together allow."""

    level: int
    urgent_level: int
    """What the urgent ones among them allow."""
    pace: float = 1.0
    power_w: float | None = None
    burst_j: float | None = None
    action: Action = Action.RUN
    feasible: bool = True
    binding: Bound | None = None
    """The one whose reason is the decision's; None: there is no bound at all."""
    by: str = ""
    """Its name where it keeps the job from anything; empty: nothing does."""
    others: tuple[Bound, ...] = ()
    """Bounds that hold the pace, the power or the action where another one holds the level."""

    @property
    def reason(self) -> str:
        """The sentence of the binding bound, and of those that hold something else."""
        if self.binding is None:
            return "no limit: the top level"
        parts = [self.binding.reason, *(f"{other.by}: {other.reason}" for other in self.others)]
        return "; ".join(parts)


def verdict(bounds: Sequence[Bound], top: int) -> Verdict:
    """Return the minimum of the bounds. Where several ask for the same, the first by rank gives the reason.

    The minimum (and not a sum of prices) because it can be explained: one bound binds the level. A floor
    lifts what budgets, carbon and users ask for, never a cap or what is for safety.
    """
    if not bounds:
        return Verdict(top, top)
    floor = max(bound.floor for bound in bounds)
    levels = [_level(bound, floor, top) for bound in bounds]
    pairs = list(zip(levels, bounds, strict=True))
    level, binding = min(pairs, key=lambda pair: _order(*pair))
    lowest = min(levels)
    powers = [bound for bound in bounds if bound.power_w is not None]
    capping = min(powers, key=_power_w) if powers else None
    pacing = min(bounds, key=lambda bound: bound.pace)
    acting = min(bounds, key=lambda bound: _SEVERITY[bound.action])
    others = [acting] if acting.action is not Action.RUN else []
    others += [pacing] if pacing.pace < 1.0 else []
    others += [capping] if capping is not None else []
    return Verdict(
        level=lowest,
        urgent_level=min((at for at, bound in pairs if bound.urgent), default=top),
        pace=pacing.pace,
        power_w=capping.power_w if capping is not None else None,
        burst_j=capping.burst_j if capping is not None else None,
        action=acting.action,
        feasible=all(bound.feasible for bound in bounds),
        binding=binding,
        by=binding.by if level < top or _holds(binding) else "",
        others=_distinct(others, binding),
    )


def settle(
    policy: Policy, wanted: Verdict, current: int, since_s: float, steps_since: float, conditions: Conditions
) -> int:
    """Return the level that follows: a fall waits `down_s` after a change if it is not urgent, a rise `up_s`.

    A rise also waits until 20 times of what a change takes have passed, or 2 % of the job's steps have been
    made, and is left out where it would not pay. `since_s` and `steps_since` count from the last change.
    """
    level = _usable(wanted.level, conditions)
    if level < current:
        if since_s >= policy.down_s:
            return level
        return min(current, _usable(wanted.urgent_level, conditions))
    if level > current:
        total = conditions.steps_total
        short = total is not None and steps_since >= SHORT_SHARE * total
        urgent = wanted.binding is not None and wanted.binding.urgent and since_s >= policy.down_s
        waited = since_s >= _block_s(policy, conditions) or short or urgent
        if not waited or not _pays(policy, wanted, current, level, conditions):
            return current
    return level


def _level(bound: Bound, floor: int, top: int) -> int:
    level = bound.level if bound.rank <= Rank.CAP else max(bound.level, floor)
    return min(max(level, 0), top)


def _order(level: int, bound: Bound) -> tuple[int, int, int, float, float]:
    # A job that is paused or stopped is held by whoever pauses or stops it, whatever its level.
    power_w = bound.power_w if bound.power_w is not None else math.inf
    return (_SEVERITY[bound.action], level, bound.rank, bound.pace, power_w)


def _distinct(bounds: Sequence[Bound], but: Bound) -> tuple[Bound, ...]:
    seen = [but]
    for bound in bounds:
        if all(bound is not other for other in seen):
            seen.append(bound)
    return tuple(seen[1:])


def _holds(bound: Bound) -> bool:
    return (
        bound.pace < 1.0 or bound.power_w is not None or bound.action is not Action.RUN or not bound.feasible
    )


def _power_w(bound: Bound) -> float:
    return bound.power_w if bound.power_w is not None else math.inf


def _usable(level: int, conditions: Conditions) -> int:
    """Return the level, or the nearest one below that the agent can take, rather one that saves something."""
    top, refused = conditions.profile.top, conditions.refused
    for hidden in (refused | conditions.profile.dead, refused):
        for below in range(level, -1, -1):
            if below not in hidden or below == top:
                return below
    return next((above for above in range(level, top) if above not in refused), top)


def _block_s(policy: Policy, conditions: Conditions) -> float:
    return max(policy.up_s, SWITCH_TIMES * conditions.switch_s)


def _pays(policy: Policy, wanted: Verdict, current: int, level: int, conditions: Conditions) -> bool:
    """Whether a rise brings at least twice what the change itself costs, where joules are scarce.

    With λ the quality that a joule buys at this place of the hull, a block of K steps at the higher level
    gains λ·K·(e_high - e_low), and the change costs λ·J_switch: λ cancels out. Where no budget prices a
    joule, a rise costs nothing that anybody counts.
    """
    priced = wanted.binding is not None and wanted.binding.rank in (Rank.BUDGET, Rank.CARBON)
    step_j, step_s = conditions.profile.step_j(), conditions.profile.step_s()
    if not priced or step_j is None or step_s is None or step_s[current] <= 0 or step_s[level] <= 0:
        return True
    switch_j = conditions.switch_j or conditions.switch_s * step_j[current] / step_s[current]
    steps = _block_s(policy, conditions) / step_s[level]
    if conditions.steps_total is not None:
        steps = min(steps, conditions.steps_total - conditions.steps_done)
    return switch_j <= 0 or steps * (step_j[level] - step_j[current]) >= WORTH * switch_j
