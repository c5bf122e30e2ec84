"""`greend jobs`: all jobs, or one in detail."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from greend.cli import options
from greend.cli.output import approx, console, force, hanging, plain, print_json, table
from greend.cli.summary import level_text, print_summary
from greend.units import format_duration, format_energy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from greend.store.jobs import JobSummary
    from greend.types import Decision

NARROW = 100
"""On a terminal of fewer columns the list leaves out when a job started, and its caps: `greend jobs JOB`."""


@click.command()
@click.argument("job", required=False)
@click.option(
    "--limit", "-n", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many."
)
@options.where
@options.as_json
def command(
    job: str | None, limit: int, database: Path | None, socket_path: Path | None, as_json: bool
) -> int:
    """List the newest jobs; with JOB (its id, a beginning of it, or a name) show that one and its levels."""
    from greend.store import jobs

    with options.history(database, socket_path) as store, store.read() as connection:
        if job is None:
            found = jobs.jobs(connection, limit)
            if as_json:
                print_json({"jobs": [job_json(s) for s in found]})
            else:
                running = [s.job.id for s in found if s.job.ended_wall_ns is None]
                _print(found, {id: jobs.last_decision(connection, id) for id in running})
            return 0
        one = jobs.job(connection, job)
        decisions = jobs.decisions(connection, one.job.id)
    if as_json:
        print_json({"job": job_json(one), "decisions": [asdict(d) for d in decisions]})
    else:
        _print_one(one, decisions)
    return 0


def job_json(found: JobSummary) -> dict[str, Any]:
    """Return a job as --json prints it."""
    job = found.job
    return {
        "id": job.id,
        "name": job.name,
        "command": list(job.command),
        "started": _utc(job.started_wall_ns),
        "ended": _utc(job.ended_wall_ns),
        "exit_code": job.exit_code,
        "energy_j": found.energy_j,
        "relative_error": found.error,
        "quality": found.quality.value,
        "budget_j": job.budget_j,
        "limits": asdict(job.limits),
        "carbon_g": job.carbon_g,
        "steps_done": job.steps_done,
        "steps_total": job.steps_total,
        "tail_j": job.tail_j,
        "costs": list(job.costs),
        "report": list(job.report),
    }


def _print(found: Sequence[JobSummary], now: Mapping[str, Decision | None]) -> None:
    out = console()
    if not found:
        out.print(Text("no job yet; start one with `greend run -- python train.py`", style="dim"))
        return
    wide = out.width >= NARROW
    rows: list[list[str | Text]] = []
    for summary in found:
        job = summary.job
        seconds = (job.ended_wall_ns - job.started_wall_ns) / 1e9 if job.ended_wall_ns is not None else None
        share = summary.energy_j / job.budget_j if job.budget_j and summary.energy_j is not None else None
        used = f"{share * 100:.0f} %" if share is not None else "-"
        rows.append(
            [
                job.id,
                job.name,
                datetime.fromtimestamp(job.started_wall_ns / 1e9).astimezone().strftime("%m-%d %H:%M"),
                _running(now[job.id], len(job.costs) - 1, wide)
                if job.id in now
                else format_duration(seconds),
                approx(format_energy(summary.energy_j), summary.quality.value),
                format_energy(job.budget_j) if job.budget_j is not None else "-",
                Text(used, style="red" if share is not None and share > 1 else ""),
                str(job.steps_done) if job.steps_done else "-",
                _exit(job.ended_wall_ns, job.exit_code),
            ]
        )
    columns = ["job", "name", "started", "took", "energy", "budget", "used", "steps", "exit"]
    if not wide:
        columns.remove("started")
        rows = [row[:2] + row[3:] for row in rows]
    out.print(table(columns, rows, left=(0, 1), wrap=(1,)))


def _running(now: Decision | None, top: int, wide: bool) -> Text:
    if now is None or top <= 0:
        return Text("running", style="cyan")
    return Text.assemble(force(now) if wide else "", ("level ", "dim"), level_text(now.level, top))


def _exit(ended: int | None, code: int | None) -> Text:
    if ended is None:
        return Text("-", style="dim")
    return Text("?" if code is None else str(code), style="red" if code else "")


def _print_one(found: JobSummary, decisions: Sequence[Decision]) -> None:
    out = console()
    print_summary(out, found, decisions)
    if found.job.report:
        out.print(Text(" the model, as the agent found it", style="dim"))
        out.print(hanging([[Text(" "), plain(line, style="dim")] for line in found.job.report]))


def _utc(wall_ns: int | None) -> str | None:
    from datetime import UTC

    if wall_ns is None:
        return None
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
