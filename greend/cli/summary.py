"""One job in a few lines: printed at the end of `greend run` and by `greend jobs JOB`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from greend.cli.output import approx, force, level_style, plain, rule
from greend.cli.plot import level_chart
from greend.types import Decision
from greend.units import (
    format_carbon,
    format_duration,
    format_energy,
    format_error,
    format_power,
    significant,
)

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
    for name, words in _limits(found):
        _line(out, name, words)
    if job.steps_done and found.energy_j is not None:
        of = f" of {job.steps_total}" if job.steps_total is not None else ""
        each = format_energy(found.energy_j / job.steps_done)
        _line(out, "work", f"{job.steps_done}{of} steps   {approx(each, found.quality.value)} each")
    top = len(job.costs) - 1
    if job.ended_wall_ns is None and decisions:
        last = decisions[-1]
        by = f"by {last.by}" if last.by else ""
        _line(out, "now", Text.assemble(level_text(last.level, top), "   ", force(last), plain(by)))
    if top > 0 and decisions:
        changes = sum(1 for d in decisions if d.previous is not None and d.previous != d.level)
        _line(out, "levels", f"{changes} {'change' if changes == 1 else 'changes'} among {top + 1}")
        points = [(float(d.at_step), d.level) for d in decisions]
        out.print(level_chart(points, float(max(job.steps_done, 1)), top, width=min(out.width - 12, 64)))
    _line(out, "next", f"greend why {job.id}   greend history --by job")


def _limits(found: JobSummary) -> Iterator[tuple[str, Text]]:
    """Yield what the job may use: how much of it is used, and whether it was met."""
    job = found.job
    limits, ended = job.limits, job.ended_wall_ns
    if limits.energy_j is not None:
        yield "budget", _spent(found.energy_j, limits.energy_j, format_energy, ended)
    if limits.carbon_g is not None:
        yield "carbon", _spent(job.carbon_g, limits.carbon_g, format_carbon, ended)
    if limits.cost is not None:
        yield "cost", Text(f"{significant(limits.cost)} at most")
    if limits.power_w is not None:
        over = "at every instant" if limits.hard else f"over {format_duration(limits.window_s)}"
        yield "power", Text(f"{format_power(limits.power_w)} at most, {over}")
    if limits.deadline_wall_ns is not None:
        at = datetime.fromtimestamp(limits.deadline_wall_ns / 1e9).astimezone().strftime("%Y-%m-%d %H:%M")
        yield "deadline", Text(f"{at}   ").append_text(_verdict(ended, limits.deadline_wall_ns))


def _spent(
    used: float | None, budget: float, write: Callable[[float | None], str], ended: int | None
) -> Text:
    if used is None:
        return Text(f"{write(budget)}   ? used")
    text = Text(f"{write(budget)}   {used / budget * 100:.1f} % used   ")
    if ended is None:
        return text.append("running", style="cyan")
    if used <= budget:
        return text.append("met", style="bold green")
    return text.append(f"missed by {write(used - budget)}", style="bold red")


def _verdict(ended: int | None, deadline: int) -> Text:
    if ended is None:
        return Text("running", style="cyan")
    late_s = (ended - deadline) / 1e9
    return (
        Text("met", style="bold green")
        if late_s <= 0
        else Text(f"missed by {format_duration(late_s)}", style="bold red")
    )


def _line(out: Console, name: str, value: str | Text) -> None:
    out.print(Text.assemble((f" {name:<8} ", "dim"), value))


def level_text(level: int | None, top: int | None) -> Text:
    """Write a level as `2 of 3` in its colour; `-` for a job without an agent."""
    if level is None or top is None or top <= 0:
        return Text("-", style="dim")
    return Text(f"{level} of {top}", style=level_style(level, top))


def share_text(used: float, budget: float | None) -> Text:
    """Write how much of a budget is used, as `62 % of 30.0 kJ`; `-` without one."""
    if budget is None:
        return Text("-", style="dim")
    style = "red" if used > budget else "yellow" if used > 0.85 * budget else ""
    return Text(f"{used / budget * 100:.0f} % of {format_energy(budget)}", style=style)
