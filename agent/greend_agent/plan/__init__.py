"""Find what can shrink in an unmodified model, prove it numerically, and say what each level means."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import nn

from greend_agent.dial import Dial, spread
from greend_agent.knobs.width import Width
from greend_agent.levels import LevelTable, solve
from greend_agent.plan.cost import work_of
from greend_agent.plan.graph import Walk, trace
from greend_agent.plan.heads import Attention, find_heads
from greend_agent.plan.layers import Fitness
from greend_agent.plan.probe import Call, Run, undisturbed
from greend_agent.plan.prove import prove
from greend_agent.plan.widths import Names, Rejected, find_widths
from greend_agent.window import Ladder

__all__ = ["Call", "Plan", "make_plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What may be narrowed in a model, by how much at each level, and why nothing else."""

    dials: tuple[Dial, ...]
    rejected: tuple[Rejected, ...]
    """What was looked at, and the reason why it is never narrowed."""
    table: LevelTable

    @property
    def report(self) -> list[str]:
        """What was found, proven and rejected, a line each."""
        lines = [f"proven: {dial.knob}: {dial.name}, {dial.full}" for dial in self.dials]
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.rejected:
            by_reason.setdefault(reason, []).append(name)
        for reason, names in by_reason.items():
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            lines.append(f"rejected: {', '.join(names[:2])}{more}: {reason}")
        return lines

    @property
    def ladder(self) -> Ladder:
        """What each level does to the model."""
        return spread(self.dials, self.table.counts)


def make_plan(
    model: nn.Module,
    call: Call,
    *,
    levels: int | Sequence[float] = 4,
    trained: Collection[nn.Parameter] | None = None,
) -> Plan:
    """Return what may be narrowed in a model, from a call that it was seen to get.

    Every position of every level is proven. With `trained`, only layers all of whose weights are in it are
    considered. The model, its buffers and the random numbers are left bit for bit as they were.
    """
    with undisturbed(model, call) as run:
        seen = trace(model, run)
        walk, names = Walk(seen), Names(model)
        fit = Fitness(model, (call.layer.module for call in seen.calls), trained)
        widths, rejected, blocked = find_widths(seen, walk, fit, names)
        attentions, unclear = find_heads(model, blocked, walk, fit, names)
        inside, unproven = _settle_layouts(run, attentions)
        told = {name for name, _ in (*unclear, *unproven)} | {dial.name for dial in inside}
        rejected = [r for r in rejected if not any(name.endswith(f"-> {r[0]}") for name in told)]
        rejected += unclear + unproven
        dials: Sequence[Dial] = [*widths, *inside]
        # What fails makes the levels of the rest other ones, and these are proven anew.
        for _ in range(3):
            table = solve(dials, work_of(seen, dials), seen.flops, levels)
            kept = dials
            for level in range(len(table) - 1):
                counts = dict(zip(dials, table.counts[level], strict=True))
                kept, failed = prove(run, kept, counts)
                rejected += failed
            if len(kept) == len(dials):
                return Plan(tuple(dials), tuple(rejected), table)
            dials = kept
    rejected += [(dial.name, "not proven in three rounds") for dial in dials]
    return Plan((), tuple(rejected), solve([], [], 0.0, 1))


def _settle_layouts(run: Run, attentions: Sequence[Attention]) -> tuple[list[Width], list[Rejected]]:
    """Return the dial of each attention whose layout could be proven, and the others with the reason.

    Of attentions of the same make one is tried; the rest is proven with everything else.
    """
    settled: list[Width] = []
    rejected: list[Rejected] = []
    known: dict[object, int | str] = {}
    for attention in attentions:
        if attention.kind not in known:
            known[attention.kind] = _first_proven(run, attention.layouts)
        which = known[attention.kind]
        if isinstance(which, str):
            rejected.append((attention.name, which))
        else:
            settled.append(attention.layouts[which])
    return settled, rejected


def _first_proven(run: Run, layouts: Sequence[Width]) -> int | str:
    reason = ""
    for which, layout in enumerate(layouts):
        proven, failed = prove(run, [layout], {layout: max(1, layout.full // 2)})
        if proven:
            return which
        reason = reason or failed[0][1]
    return reason
