"""One decision about one job: `decide(policy, state, conditions, now)`, replayable from its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from greend.clock import Instant
from greend.governor.arbiter import Verdict, settle, verdict
from greend.governor.conditions import Conditions
from greend.governor.constraint import Constraint, Memory
from greend.governor.policy import Policy, State
from greend.types import Action, Bound, Decision, Rank

MISCOUNTED_STEPS = 1.0
"""With more steps than this beyond the number that was said, that number is known to be wrong."""


def decide(policy: Policy, state: State, conditions: Conditions, now: Instant) -> tuple[Decision, State]:
    """Return what is to be in force now, with its reason, and what to remember until the next turn.

    The last decision comes back unchanged (the same object) while nothing changed, so that the caller
    stores and announces exactly what is new. Raises nothing.
    """
    total = conditions.steps_total
    if total is not None and conditions.steps_done > total + MISCOUNTED_STEPS:
        conditions = replace(conditions, steps_total=None)
    elif total is not None and conditions.steps_done >= total and state.decision is not None:
        return state.decision, state  # the steps are made: what follows them is no longer the level's
    memory: dict[str, Memory] = {}
    bounds = _ask(policy.constraints, state, conditions, now, memory)
    if not _measured(policy, conditions, now):
        bounds = [_measuring(bound, state, conditions) for bound in bounds]
    advice = [replace(bound, advised=True) for bound in _ask(policy.advisers, state, conditions, now, memory)]
    top = conditions.profile.top
    wanted, advised = verdict(bounds, top), verdict(advice, top)
    last = state.decision
    current = last.level if last is not None else top
    steps_since = conditions.steps_done - state.changed_step
    level = settle(policy, wanted, current, _seconds(state.changed, now), steps_since, conditions)
    decision = _decision(wanted, advised, level, (*bounds, *advice), conditions, last, now)
    if last is not None and not _is_new(policy, state, decision, advised, top, now):
        return last, replace(state, memory=memory)
    if level != current:
        return decision, State(decision, now, conditions.steps_done, now, memory)
    return decision, replace(state, decision=decision, decided=now, memory=memory)


def _ask(
    constraints: Sequence[Constraint],
    state: State,
    conditions: Conditions,
    now: Instant,
    memory: dict[str, Memory],
) -> list[Bound]:
    bounds = []
    for constraint in constraints:
        bound, memory[constraint.by] = constraint.bound(conditions, state.memory.get(constraint.by), now)
        if bound is not None:
            bounds.append(bound)
    return bounds


def _measured(policy: Policy, conditions: Conditions, now: Instant) -> bool:
    attached = conditions.attached
    return attached is not None and now.seconds_since(attached) >= policy.warmup_s


def _measuring(bound: Bound, state: State, conditions: Conditions) -> Bound:
    """Return a bound that waits for the first figures, if it is one that is reckoned from them."""
    if bound.rank not in (Rank.BUDGET, Rank.CARBON) or bound.urgent:
        return bound
    level = state.decision.level if state.decision is not None else conditions.profile.top
    return Bound(bound.by, bound.rank, level, "measuring what a step costs at the top", figures=bound.figures)


def _decision(
    wanted: Verdict,
    advised: Verdict,
    level: int,
    bounds: tuple[Bound, ...],
    conditions: Conditions,
    last: Decision | None,
    now: Instant,
) -> Decision:
    reason = wanted.reason
    if level != wanted.level:
        reason += f"; {_kept(level, wanted.level)}"
    only_advised = bool(advised.by) and not wanted.by
    if only_advised:
        reason += f"; only advised: {advised.reason}"
    figures = wanted.binding.figures if wanted.binding is not None else {}
    return Decision(
        level=level,
        reason=reason,
        at_wall_ns=now.wall_ns,
        at_step=round(conditions.steps_done),
        previous=last.level if last is not None else None,
        feasible=wanted.feasible,
        inputs={"spent_j": conditions.spent_j, "steps_done": conditions.steps_done} | figures,
        pace=wanted.pace,
        power_w=wanted.power_w,
        burst_j=wanted.burst_j,
        action=wanted.action,
        by=wanted.by,
        bounds=bounds,
        advised=only_advised,
    )


def _kept(level: int, wanted: int) -> str:
    return f"level {level} stays for now, level {wanted} follows if it is still right after a while"


def _is_new(
    policy: Policy, state: State, decision: Decision, advised: Verdict, top: int, now: Instant
) -> bool:
    last = state.decision
    if last is None or _in_force(decision) != _in_force(last):
        return True
    # Who binds, and what is only advised, may change from turn to turn without anything being done by it.
    if _seconds(state.decided, now) < policy.up_s:
        return False
    before = verdict([bound for bound in last.bounds if bound.advised], top)
    return decision.by != last.by or _said(advised) != _said(before)


def _in_force(decision: Decision) -> tuple[int, float, float | None, float | None, Action, bool]:
    return (
        decision.level,
        decision.pace,
        decision.power_w,
        decision.burst_j,
        decision.action,
        decision.feasible,
    )


def _said(advised: Verdict) -> tuple[int, float, bool, Action]:
    return advised.level, advised.pace, advised.power_w is not None, advised.action


def _seconds(since: Instant | None, now: Instant) -> float:
    return now.seconds_since(since) if since is not None else float("inf")
