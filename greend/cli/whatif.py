"""`greend what-if`: a job that ran, run again in simulated time under other limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from greend.cli import options
from greend.cli.limits import ENERGY_OR_CHANGE, Change, asked, changed
from greend.cli.output import approx, console, level_style, plain, print_json, rule, table
from greend.cli.when import local_now
from greend.errors import UsageError
from greend.types import Limits
from greend.units import format_duration, format_energy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from greend.cli.past import Course
    from greend.store.jobs import JobSummary

HAPPENED, AGAIN, WHAT_IF = "happened", "rehearsed", "what if"


@click.command()
@click.argument("job")
@asked("--budget", ENERGY_OR_CHANGE)
@options.where
@options.as_json
def command(
    job: str, named: dict[str, Any], database: Path | None, socket_path: Path | None, as_json: bool
) -> int:
    """Rehearse what other limits would have made of JOB, which has ended: `greend what-if --budget -20% JOB`.

    The same governor decides over a simulated job whose steps cost what was measured; a deadline counts from
    its start. Beside it stands a rehearsal under the limits that it had: as far as that one is from what
    happened, so little can the other be trusted. Quality is what the steps are taken to be worth, as a share
    of as many at the top.
    """
    from greend.cli import past

    if not named:
        raise UsageError("what if what: name at least one limit, as --budget -20% or --deadline 2h")
    with options.history(database, socket_path) as store:
        one = past.ended(store, job)
    found, facts = one.summary, one.facts()
    limits = changed(found.job.limits, _as_limits(named, found))
    past.check_priced(limits, facts)
    courses = {
        HAPPENED: one.course(),
        AGAIN: past.rehearsed(facts, found.job.limits),
        WHAT_IF: past.rehearsed(facts, limits),
    }
    if as_json:
        figures = {name.replace(" ", "_"): asdict(course) for name, course in courses.items()}
        print_json({"job": found.job.id, "limits": asdict(limits), **figures})
    else:
        _print(found, limits, courses)
    return 0


def _as_limits(named: Mapping[str, Any], found: JobSummary) -> dict[str, Any]:
    """Return the limits that were named: a change in joules of the budget or of what was used, and a
    deadline so long after the job's start as it was said to be from now.
    """
    said = dict(named)
    if "deadline_wall_ns" in said:
        said["deadline_wall_ns"] += found.job.started_wall_ns - round(local_now().timestamp() * 1e9)
    change = said.get("energy_j")
    if isinstance(change, Change):
        base = found.job.budget_j if found.job.budget_j is not None else found.energy_j
        if base is None or change <= -1:
            raise UsageError(f"change the budget by {change * 100:+.0f} %: nothing would be left of it")
        said["energy_j"] = base * (1 + change)
    return said


def _print(found: JobSummary, limits: Limits, courses: Mapping[str, Course]) -> None:
    out = console()
    rule(out, found.job.id)
    energy = limits.energy_j
    under = f"under {format_energy(energy)}" if energy is not None else "under other limits"
    had = f" instead of {format_energy(found.job.budget_j)}" if found.job.budget_j is not None else ""
    out.print(Text.assemble(plain(f" {found.job.name}", "bold"), f"   {under}{had if energy else ''}"))
    out.print(table(["", *courses], _rows(list(courses.values()), found.quality.value)))
    job = found.job
    if job.steps_total is not None and job.steps_done < job.steps_total:
        planned = (
            f"it ended after {job.steps_done} of {job.steps_total} steps, for which its budget was planned"
        )
        out.print(Text(f" {planned}; the rehearsals plan for {job.steps_done}", style="dim"))
    last = courses[WHAT_IF]
    if last.problem:
        out.print(plain(f" {last.problem}", "bold red"))


def _rows(courses: Sequence[Course], quality: str) -> list[list[str | Text]]:
    rows: list[list[str | Text]] = [
        ["energy", *(approx(format_energy(c.energy_j), quality) for c in courses)],
        ["time", *(format_duration(c.seconds) for c in courses)],
        ["steps", *(str(c.steps_done) for c in courses)],
        ["quality", *(f"{c.quality:.3f}" for c in courses)],
        ["changes", *(str(c.changes) for c in courses)],
    ]
    top = len(courses[0].steps_at) - 1
    for level in range(top, -1, -1):
        name = f"at level {level}" + (", the top" if level == top else "")
        each = [
            f"{c.steps_at[level]} ({c.steps_at[level] / max(c.steps_done, 1) * 100:3.0f} %)" for c in courses
        ]
        rows.append([Text(name, style=level_style(level, top)), *each])
    return rows
