"""Find what can shrink in an unmodified model, prove it numerically, and say what each level means."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import nn

from greend_agent.group import Group
from greend_agent.levels import LevelTable, Work, solve
from greend_agent.plan.graph import Trace, find_groups, trace
from greend_agent.plan.probe import Call, undisturbed
from greend_agent.plan.prove import prove

__all__ = ["Call", "Group", "Plan", "make_plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What may be narrowed in a model, by how much at each level, and why nothing else."""

    groups: tuple[Group, ...]
    rejected: tuple[tuple[str, str], ...]
    """What was looked at, and the reason why it is never narrowed."""
    table: LevelTable

    @property
    def report(self) -> list[str]:
        """What was found, proven and rejected, a line each."""
        lines = [f"proven: {group.name}, {group.width} wide" for group in self.groups]
        return lines + [f"rejected: {name}: {reason}" for name, reason in self.rejected]


def make_plan(
    model: nn.Module, call: Call, *, levels: int = 4, trained: Collection[nn.Parameter] | None = None
) -> Plan:
    """Return what may be narrowed in a model, from a call that it was seen to get.

    Every width of every level is proven. With `trained`, only layers all of whose weights are in it are
    considered. The model, its buffers and the random numbers are left bit for bit as they were.
    """
    with undisturbed(model, call) as run:
        seen = trace(model, run)
        groups, rejected = find_groups(model, seen, trained)
        # What fails makes the levels of the rest other ones, and these are proven anew.
        for _ in range(3):
            table = solve([g.width for g in groups], _work(seen, groups), seen.flops, levels)
            kept: Sequence[Group] = groups
            for level in range(len(table) - 1):
                counts = dict(zip(groups, table.counts[level], strict=True))
                kept, failed = prove(model, run, kept, counts)
                rejected += failed
            if len(kept) == len(groups):
                return Plan(tuple(groups), tuple(rejected), table)
            groups = list(kept)
    rejected += [(group.name, "not proven in three rounds") for group in groups]
    return Plan((), tuple(rejected), solve([], [], 0.0, 1))


def _work(seen: Trace, groups: Sequence[Group]) -> list[Work]:
    makes = {p: which for which, group in enumerate(groups) for p in group.producers}
    reads = {c: which for which, group in enumerate(groups) for c in group.consumers}
    return [
        Work(2.0 * call.rows * call.linear.weight.numel(), reads.get(call.linear), makes.get(call.linear))
        for call in seen.calls
        if call.linear in makes or call.linear in reads
    ]
