"""`greend why`: every change of a job's level, with the reason it was made for."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from greend.cli import options
from greend.cli.jobs import job_json
from greend.cli.output import console, level_style, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from greend.types import Decision, Job


@click.command()
@click.argument("job")
@options.where
@options.as_json
def command(job: str, database: Path | None, socket_path: Path | None, as_json: bool) -> int:
    """Explain why JOB ran at the levels it ran at, newest decision last."""
    from greend.store import jobs

    with options.history(database, socket_path) as store, store.read() as connection:
        found = jobs.job(connection, job)
        decisions = jobs.decisions(connection, found.job.id)
    if as_json:
        print_json({"job": job_json(found), "decisions": [asdict(d) for d in decisions]})
        return 0
    out = console()
    if not decisions:
        out.print(Text(_nothing(found.job), style="dim"))
    for decision in decisions:
        _print(out, decision, max(len(found.job.costs) - 1, 0))
    return 0


def _print(out: Console, decision: Decision, top: int) -> None:
    at = datetime.fromtimestamp(decision.at_wall_ns / 1e9).astimezone().strftime("%H:%M:%S")
    before = (
        "" if decision.previous is None or decision.previous == decision.level else f"{decision.previous} → "
    )
    level = Text(f"{before}{decision.level}".rjust(6), style=level_style(decision.level, top))
    reason = Text(decision.reason, style="" if decision.feasible else "bold red")
    out.print(Text.assemble((f" {at}  step {decision.at_step:>6}  ", "dim"), "level", level, "  ", reason))


def _nothing(job: Job) -> str:
    if job.costs:
        return "no decision was made about this job yet"
    return (
        "no decision was made about this job: no agent is attached to it, so there is nothing to turn "
        "(start a PyTorch job with `greend run`, or call greend_agent.attach in it)"
    )
