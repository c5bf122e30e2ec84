"""Find what can shrink in an unmodified model, prove it numerically, and say what each level means."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import nn

from greend_agent.dial import Dial, spread
from greend_agent.levels import LevelTable, solve
from greend_agent.plan.cost import work_of
from greend_agent.plan.graph import trace
from greend_agent.plan.probe import Call, Run, other_weights, undisturbed
from greend_agent.plan.proposals import WIDTHS, Subject, propose, propose_widths
from greend_agent.plan.prove import prove, rehearse
from greend_agent.plan.widths import Rejected
from greend_agent.windows.ladder import Ladder

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
    knobs: Collection[str] | None = None,
    trained: Collection[nn.Parameter] | None = None,
) -> Plan:
    """Return what may be turned down in a model, from a call that it was seen to get.

    `levels`: how many, or the cost of each relative to the untouched model. `knobs`: which may be used,
    None: hidden widths. With `trained`, only layers all of whose weights are in it are considered. Every
    position of every level is proven. The model, its buffers and the random numbers are left bit for bit
    as they were.
    """
    chosen = WIDTHS if knobs is None else knobs
    with undisturbed(model, call) as run:
        seen = trace(model, run)
        subject = Subject(model, call, run, seen, trained)
        others, rejected = propose(subject, chosen)
        with other_weights(model):
            widths, not_widths = propose_widths(subject, chosen)
            dials: list[Dial] = [*widths, *others]
            rejected += not_widths
            # What fails makes the levels of the rest other ones, and these are proven anew.
            for _ in range(3):
                table = solve(dials, work_of(seen, dials), seen.flops, levels)
                failed = _failing(run, dials, table)
                if not failed:
                    return Plan(tuple(dials), tuple(rejected), table)
                rejected += [(dial.name, reason) for dial, reason in failed.items()]
                dials = [dial for dial in dials if dial not in failed]
    rejected += [(dial.name, "not proven in three rounds") for dial in dials]
    return Plan((), tuple(rejected), solve([], [], 0.0, 1))


def _failing(run: Run, dials: Sequence[Dial], table: LevelTable) -> dict[Dial, str]:
    """Return what does not hold at some level, with the reason."""
    failed: dict[Dial, str] = {}
    for positions in table.counts[:-1]:
        counts = dict(zip(dials, positions, strict=True))
        exact = [dial for dial in dials if dial.readers and dial not in failed]
        failed |= prove(run, exact, counts)
        # Others change what is computed: that it is right cannot be proven, that it runs can be tried.
        others = [dial for dial in dials if not dial.readers and dial not in failed]
        standing = [dial for dial in dials if dial not in failed]
        if others and (reason := rehearse(run, standing, [counts[dial] for dial in standing])):
            failed |= dict.fromkeys(others, reason)
    return failed
