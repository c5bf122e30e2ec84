"""From a forward that was seen to windows that can be put on, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from greend_agent import refusals
from greend_agent.compiling import eagerly
from greend_agent.engines import Engine
from greend_agent.knobs.around import fronted
from greend_agent.norm import banked
from greend_agent.norm.banked import BankedWindows
from greend_agent.plan import Call, Plan, make_plan
from greend_agent.plan.proposals import WITHOUT_WINDOWS


@dataclass(frozen=True, slots=True)
class Lack:
    """Why there is no plan, and what was found all the same."""

    reason: str
    report: Sequence[str] = ()


def planned(
    engine: Engine,
    optimizer: Optimizer,
    call: Call | None,
    *,
    levels: int | Sequence[float],
    knobs: Collection[str] | None,
) -> Plan | Lack:
    """Return a plan that all processes have made, or why there is none.

    Raises what planning raises, once the other processes have been told.
    """
    call = engine.share(call)  # where this fails, there are no others to be told
    try:
        knobs, reason = _usable(engine, optimizer, knobs)
        if call is None or reason is not None:
            plan, lack = None, Lack(reason or "no training forward was seen")
        else:
            trained = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
            with eagerly(), engine.planning(trained) as lent:
                plan = make_plan(engine.model, call, levels=levels, knobs=knobs, trained=lent)
            lack = Lack("nothing in the model was proven to make a level", plan.report)
            plan = engine.own(plan) if len(plan.table) > 1 else None
    except Exception as error:
        engine.lacking(f"{type(error).__name__}: {error}")
        raise
    if plan is None:
        engine.lacking(lack.reason)
        return lack
    reason = engine.agree(plan)
    return plan if reason is None else Lack(reason, plan.report)


def _usable(
    engine: Engine, optimizer: Optimizer, knobs: Collection[str] | None
) -> tuple[Collection[str] | None, str | None]:
    """Return the knobs that go with the optimizer, and why nothing can be turned, if so."""
    reason = refusals.of_sitting_out(optimizer) or banked.refusal(engine.model)
    unwindowed = refusals.of_optimizer(optimizer)
    if unwindowed is None:
        return knobs, reason
    knobs = WITHOUT_WINDOWS.intersection(knobs or ())
    return knobs, reason or (None if knobs else unwindowed)


def fitted(engine: Engine, optimizer: Optimizer, plan: Plan) -> tuple[BankedWindows, list[Any]]:
    """Return the windows of a plan, and what is to be removed when they are no longer used."""
    ladder, fronts = fronted(engine.ladder(plan), engine.callers)
    windows = BankedWindows(
        engine.model,
        ladder,
        optimizer,
        compact=engine.compact,
        sent=banked.buffers_are_sent(engine.outer),
    )
    return windows, [*fronts, windows.banks]
