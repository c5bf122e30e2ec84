"""What binds a job: its own limits, the machine's budgets, the rules that are for it, and holds (pure)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, tzinfo

from greend.clock import NS, Instant
from greend.config import Governor
from greend.errors import Unenforceable
from greend.governor.carbon import CarbonBudget, CostBudget
from greend.governor.constraint import Constraint
from greend.governor.deadline import Deadline
from greend.governor.energy import EnergyBudget
from greend.governor.hold import Hold
from greend.governor.period import PeriodBudget
from greend.governor.policy import Policy
from greend.governor.power import PowerCap
from greend.governor.pressure import Pressure
from greend.governor.rules import Rule, applies
from greend.governor.span import Span
from greend.types import Job, Limits
from greend.units import format_power


def policy_for(
    job: Job,
    settings: Governor,
    rules: Sequence[Rule],
    holds: Sequence[Hold],
    now: Instant,
    periods: Sequence[Constraint] = (),
    hardware: bool = False,
    zone: tzinfo | None = None,
) -> Policy:
    """Return the policy of a job at an instant.

    A job's limits act, since somebody gave them by hand or wrote them into the settings; so do holds and
    `periods`, the machine's budgets of day and month. A rule acts if its mode says so, else it advises.
    `hardware` says whether a device here can hold a power by itself; `zone` is that of the rules' hours
    (None: the machine's own). Raises Unenforceable for a hard cap without hardware.
    """
    if job.limits.hard and not hardware:
        raise Unenforceable(hard_words(job.limits))
    acting = [*_constraints(job.limits, settings), *periods]
    acting += [replace(hold, keep=True) for hold in holds] if settings.holds_may_raise else holds
    advising: list[Constraint] = []
    if rules:
        local = datetime.fromtimestamp(now.wall_ns / NS, zone).time()
        for rule in rules:
            if applies(rule, job, local):
                (acting if rule.mode == "act" else advising).extend(_of_rule(rule, settings))
    return Policy(tuple(acting), tuple(advising), settings.down_s, settings.up_s, settings.warmup_s)


def hard_words(limits: Limits, why_not: str = "there is no device here whose limit greend may turn") -> str:
    """Return why a hard cap is refused where no hardware holds it, and what to do."""
    watts = format_power(limits.power_w)
    return (
        f"hold a job at {watts} at every instant: only hardware can hold a hard cap, and {why_not}; leave "
        "--hard out for an average, which is held by waiting between steps (a step's peak passes it)"
    )


def _constraints(limits: Limits, settings: Governor, prefix: str = "") -> list[Constraint]:
    found: list[Constraint] = []
    if limits.power_w is not None:
        found.append(PowerCap(limits.power_w, limits.window_s, limits.hard, by=f"{prefix}power cap"))
    if limits.energy_j is not None:
        found.append(
            replace(_spending(limits, settings), budget_j=limits.energy_j, by=f"{prefix}energy budget")
        )
    if limits.carbon_g is not None:
        found.append(
            CarbonBudget(
                limits.carbon_g,
                _spending(limits, settings),
                done_by_wall_ns=limits.deadline_wall_ns,
                by=f"{prefix}carbon budget",
            )
        )
    if limits.cost is not None:
        found.append(CostBudget(limits.cost, _spending(limits, settings), by=f"{prefix}cost budget"))
    if limits.deadline_wall_ns is not None:
        found.append(Deadline(limits.deadline_wall_ns, limits.power_w, by=f"{prefix}deadline"))
    return found


def _spending(limits: Limits, settings: Governor) -> EnergyBudget:
    """Return how a budget is spent, whatever it is counted in; the amount is filled in by who counts."""
    return EnergyBudget(
        math.inf,
        reserve_share=settings.reserve_share,
        finish_share=settings.finish_share,
        order=limits.order,
        on_infeasible=limits.on_infeasible,
    )


def of_period(period: str, limits: Limits, ends_wall_ns: int, settings: Governor) -> list[Constraint]:
    """Return the machine's budgets of a `day` or `month` that ends at a moment."""
    spending = _spending(limits, settings)
    budgets: list[Constraint] = []
    for field in ("energy_j", "carbon_g", "cost"):
        amount = getattr(limits, field)
        if amount is not None:
            budgets.append(replace(PeriodBudget(period, ends_wall_ns, energy=spending), **{field: amount}))
    return budgets


def _of_rule(rule: Rule, settings: Governor) -> list[Constraint]:
    prefix = f"policy {rule.name}: "
    found = _constraints(rule.limits, settings, prefix)
    if rule.machine_power_w is not None:
        by = f"{prefix}machine power cap"
        found.append(PowerCap(rule.machine_power_w, rule.limits.window_s, shared=True, by=by))
    for kind, threshold in rule.pressures:
        by = f"{prefix}{kind.replace('_', ' ')} pressure"
        found.append(Pressure(kind, threshold, rule.lasting_s, by=by))
    if rule.level is not None or rule.level_at_least is not None:
        found.append(Span(f"{prefix}levels", rule.level_at_least, rule.level))
    return found
