"""One decision about one job: `decide(policy, state, conditions, now)`, replayable from its inputs."""

from __future__ import annotations

from dataclasses import dataclass

from greend.clock import Instant
from greend.governor.budget import Bound, EnergyBudget, bound
from greend.governor.profile import LevelProfile
from greend.types import Decision
from greend.units import format_energy, significant

UNKNOWN_STEPS_SHARE = 0.8
"""With an unknown number of steps, the share of the budget that is spent at the top."""

MEASURE_S = 2.0
"""A level is held for so long before it is left for a lower one, so that a whole turn measures it."""
HOLD_SHARE = 0.02
"""Share of a job's steps after which its level may rise again, however little time has passed."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How a job is to be held."""

    budget: EnergyBudget | None
    hold_s: float = 5.0
    """The least time between two changes of level, unless the budget would be missed."""
    warmup_s: float = 2.0
    """Time at the top before the first change, to measure what a step costs."""


@dataclass(frozen=True, slots=True)
class State:
    """What the governor remembers of a job: its last decision, and when the level last changed."""

    decision: Decision | None = None
    changed: Instant | None = None
    attached: Instant | None = None


@dataclass(frozen=True, slots=True)
class Conditions:
    """All that the governor may know at one instant."""

    profile: LevelProfile
    spent_j: float
    steps_done: float
    steps_total: int | None


def decide(policy: Policy, state: State, conditions: Conditions, now: Instant) -> Decision:
    """Return the level that should be in force now, with its reason.

    The last decision comes back unchanged (the same object) while nothing changed, so that the
    caller stores and announces exactly what is new.
    """
    top = conditions.profile.top
    if policy.budget is None:
        return _settle(state, conditions, now, top, "no budget: the top level", feasible=True)
    if conditions.steps_total is None:
        return _without_steps(policy.budget, state, conditions, now)
    if state.decision is not None and conditions.steps_done >= conditions.steps_total:
        return state.decision  # the steps are made: what follows them is no longer the level's
    step_j = conditions.profile.step_j()
    warm = state.attached is not None and now.seconds_since(state.attached) >= policy.warmup_s
    if step_j is None or not warm:
        return _settle(state, conditions, now, top, "measuring what a step costs at the top", feasible=True)

    current = state.decision.level if state.decision else top
    limit = bound(
        policy.budget,
        step_j,
        conditions.spent_j,
        conditions.steps_done,
        conditions.steps_total,
        current,
        conditions.profile.hopeful_step_j(),
    )
    level = _held(policy, state, limit, current, conditions, now)
    reason = _reason(limit, level, step_j)
    return _settle(state, conditions, now, level, reason, limit.feasible, _inputs(limit, step_j, conditions))


def _held(
    policy: Policy, state: State, limit: Bound, current: int, conditions: Conditions, now: Instant
) -> int:
    """Return the level after the rules against flapping: rise only after a hold, fall only when due."""
    if limit.level < current:
        unmeasured = _since(state, now) < MEASURE_S and limit.may_try
        return current if limit.keep or unmeasured else limit.level
    if limit.level > current and _holding(policy, state, conditions, now) and limit.level < limit.top:
        return current
    # Where the top can be paid for all that is left, waiting would only leave joules unspent.
    return limit.level


def _holding(policy: Policy, state: State, conditions: Conditions, now: Instant) -> bool:
    """Whether the level changed too recently to rise again.

    A hold ends early for a job so short that it would spend much of its steps waiting.
    """
    if state.decision is None or conditions.steps_total is None:
        return False
    steps = conditions.steps_done - state.decision.at_step
    return _since(state, now) < policy.hold_s and steps < HOLD_SHARE * conditions.steps_total


def _since(state: State, now: Instant) -> float:
    return now.seconds_since(state.changed) if state.changed is not None else float("inf")


def _reason(limit: Bound, level: int, step_j: tuple[float, ...]) -> str:
    steps = f"{limit.steps_left:.0f} steps left"
    costs = f"level {level} costs {_step(step_j[level])} a step"
    if not limit.feasible:
        missing = format_energy(limit.short_j)
        return (
            f"the budget cannot be met: {missing} short for {steps} "
            f"even at level 0 ({_step(step_j[0])} a step)"
        )
    top = len(step_j) - 1
    rest = f"{format_energy(max(limit.left_j, 0.0))} for {steps}"
    if limit.hopeful and level == limit.level:
        last = f"level {level} last cost {_step(step_j[level])}, worth a try"
        return f"{rest} is {_step(limit.step_j)} each; {last}"
    if level == top and limit.finish_steps >= limit.steps_left:
        return f"finish: {rest}; {costs}"
    if level == top:
        return f"the budget carries the top: {rest} is {_step(limit.step_j)} each; {costs}"
    kept = f", the last {limit.finish_steps:.0f} at the top" if limit.finish_steps >= 1 else ""
    above = f"level {level + 1} {_step(step_j[level + 1])}"
    return f"{rest} is {_step(limit.step_j)} each{kept}; {costs}, {above}"


def _step(step_j: float) -> str:
    return f"{significant(step_j * 1e3)} mJ" if step_j < 0.1 else f"{significant(step_j)} J"


def _inputs(limit: Bound, step_j: tuple[float, ...], conditions: Conditions) -> dict[str, float]:
    figures = {
        "spent_j": conditions.spent_j,
        "left_j": limit.left_j,
        "steps_done": conditions.steps_done,
        "steps_left": limit.steps_left,
        "finish_steps": limit.finish_steps,
        "short_j": limit.short_j,
    }
    return figures | {f"step_j_{k}": value for k, value in enumerate(step_j)}


def _without_steps(budget: EnergyBudget, state: State, conditions: Conditions, now: Instant) -> Decision:
    """Hold a budget without knowing the end: the top for most of it, the least level for the rest."""
    share = conditions.spent_j / budget.budget_j
    unknown = "how many steps are left is not known (say it with --steps)"
    if share < UNKNOWN_STEPS_SHARE:
        text = f"{unknown}: the top until {UNKNOWN_STEPS_SHARE:.0%} of the budget is spent"
        return _settle(state, conditions, now, conditions.profile.top, text, feasible=True)
    if share < 1:
        text = f"{unknown}: {UNKNOWN_STEPS_SHARE:.0%} of the budget is spent, level 0 stretches the rest"
        return _settle(state, conditions, now, 0, text, feasible=True)
    return _settle(state, conditions, now, 0, f"the budget is spent; {unknown}", feasible=False)


def _settle(
    state: State,
    conditions: Conditions,
    now: Instant,
    level: int,
    reason: str,
    feasible: bool,
    inputs: dict[str, float] | None = None,
) -> Decision:
    last = state.decision
    if last is not None and last.level == level and last.feasible == feasible:
        return last
    return Decision(
        level=level,
        reason=reason,
        at_wall_ns=now.wall_ns,
        at_step=round(conditions.steps_done),
        previous=last.level if last else None,
        feasible=feasible,
        inputs=inputs or {"spent_j": conditions.spent_j, "steps_done": conditions.steps_done},
    )
