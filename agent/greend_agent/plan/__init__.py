"""Find what can shrink in an unmodified model, prove it numerically, and say what each level means."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from greend_agent.dial import Dial, spread
from greend_agent.levels import LevelTable, Work, solve
from greend_agent.plan.graph import Trace, find_groups, trace
from greend_agent.plan.probe import Call, undisturbed
from greend_agent.plan.prove import prove
from greend_agent.window import Ladder

__all__ = ["Call", "Plan", "make_plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What may be narrowed in a model, by how much at each level, and why nothing else."""

    dials: tuple[Dial, ...]
    rejected: tuple[tuple[str, str], ...]
    """What was looked at, and the reason why it is never narrowed."""
    table: LevelTable

    @property
    def report(self) -> list[str]:
        """What was found, proven and rejected, a line each."""
        lines = [f"proven: {dial.knob}: {dial.name}, {dial.full}" for dial in self.dials]
        return lines + [f"rejected: {name}: {reason}" for name, reason in self.rejected]

    @property
    def ladder(self) -> Ladder:
        """What each level does to the model."""
        return spread(self.dials, self.table.counts)


def make_plan(
    model: nn.Module, call: Call, *, levels: int = 4, trained: Collection[nn.Parameter] | None = None
) -> Plan:
    """Return what may be narrowed in a model, from a call that it was seen to get.

    Every width of every level is proven. With `trained`, only layers all of whose weights are in it are
    considered. The model, its buffers and the random numbers are left bit for bit as they were.
    """
    with undisturbed(model, call) as run:
        seen = trace(model, run)
        found, rejected = find_groups(model, seen, trained)
        dials: Sequence[Dial] = found
        # What fails makes the levels of the rest other ones, and these are proven anew.
        for _ in range(3):
            table = solve(dials, _work(seen, dials), seen.flops, levels)
            kept = dials
            for level in range(len(table) - 1):
                counts = dict(zip(dials, table.counts[level], strict=True))
                kept, failed = prove(model, run, kept, counts)
                rejected += failed
            if len(kept) == len(dials):
                return Plan(tuple(dials), tuple(rejected), table)
            dials = kept
    rejected += [(dial.name, "not proven in three rounds") for dial in dials]
    return Plan((), tuple(rejected), solve([], [], 0.0, 1))


def _work(seen: Trace, dials: Sequence[Dial]) -> list[Work]:
    touched: dict[torch.Tensor, list[int]] = {}
    for which, dial in enumerate(dials):
        for cut in dial.turned(1).cuts:
            touched.setdefault(cut.tensor, []).append(which)
    return [
        Work(2.0 * call.rows * call.linear.weight.numel(), tuple(touched[call.linear.weight]))
        for call in seen.calls
        if call.linear.weight in touched
    ]
