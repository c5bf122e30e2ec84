"""One job in a few lines: printed at the end of `greend run` and by `greend jobs JOB`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from greend.cli.output import approx, level_style, plain, rule
from greend.cli.plot import level_chart
from greend.types import Decision
from greend.units import format_duration, format_energy, format_error

if TYPE_CHECKING:
    from greend.store.jobs import JobSummary


def print_summary(out: Console, found: JobSummary, decisions: Sequence[Decision]) -> None:
    """Print what a job used, its budget, its work and its levels."""
    job = found.job
    rule(out, job.id)
    seconds = (job.ended_wall_ns - job.started_wall_ns) / 1e9 if job.ended_wall_ns is not None else None
    state = (
        "running" if job.ended_wall_ns is None else f"exit {'?' if job.exit_code is None else job.exit_code}"
    )
    took = f"   {format_duration(seconds)}" if seconds is not None else ""
    out.print(Text.assemble(plain(f" {job.name}", "bold"), f"   {state}{took}"))
    energy = approx(format_energy(found.energy_j), found.quality.value)
    _line(out, "energy", f"{energy} {format_error(found.error)}   {found.quality.value}")
    if job.budget_j is not None:
        _line(out, "budget", _budget(found, job.budget_j))
    if job.steps_done and found.energy_j is not None:
        of = f" of {job.steps_total}" if job.steps_total is not None else ""
        each = format_energy(found.energy_j / job.steps_done)
        _line(out, "work", f"{job.steps_done}{of} steps   {approx(each, found.quality.value)} each")
    top = len(job.costs) - 1
    if top > 0 and decisions:
        changes = sum(1 for d in decisions if d.previous is not None and d.previous != d.level)
        _line(out, "levels", f"{changes} {'change' if changes == 1 else 'changes'} among {top + 1}")
        points = [(float(d.at_step), d.level) for d in decisions]
        out.print(level_chart(points, float(max(job.steps_done, 1)), top, width=min(out.width - 12, 64)))
    _line(out, "next", f"greend why {job.id}   greend history --by job")


def _budget(found: JobSummary, budget_j: float) -> Text:
    used_j = found.energy_j or 0.0
    share = used_j / budget_j
    text = Text(f"{format_energy(budget_j)}   {share * 100:.1f} % used   ")
    if found.job.ended_wall_ns is None:
        return text.append("running", style="cyan")
    if share <= 1:
        return text.append("met", style="bold green")
    over = format_energy(used_j - budget_j)
    return text.append(f"missed by {over}", style="bold red")


def _line(out: Console, name: str, value: str | Text) -> None:
    out.print(Text.assemble((f" {name:<8} ", "dim"), value))


def level_text(level: int | None, top: int | None) -> Text:
    """Write a level as `2 of 3` in its colour; `-` for a job without an agent."""
    if level is None or top is None or top <= 0:
        return Text("-", style="dim")
    return Text(f"{level} of {top}", style=level_style(level, top))
