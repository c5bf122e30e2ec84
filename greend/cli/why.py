"""`greend why`: every change of a job's level, with the reason it was made for."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from greend.cli import options
from greend.cli.jobs import job_json
from greend.cli.output import console, level_style, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    else:
        out.print(_table(decisions, max(len(found.job.costs) - 1, 0)))
    return 0


def _table(decisions: Sequence[Decision], top: int) -> Table:
    """Return one row per decision; a reason too long for the terminal wraps under itself."""
    grid = Table.grid(padding=(0, 2), pad_edge=True)
    for justify in ("left", "right", "right"):
        grid.add_column(justify=justify, no_wrap=True)
    grid.add_column(overflow="fold")
    for decision in decisions:
        at = datetime.fromtimestamp(decision.at_wall_ns / 1e9).astimezone().strftime("%H:%M:%S")
        changed = decision.previous is not None and decision.previous != decision.level
        level = f"{decision.previous} → {decision.level}" if changed else f"{decision.level}"
        grid.add_row(
            Text(at, style="dim"),
            Text(f"step {decision.at_step}", style="dim"),
            Text(f"level {level}", style=level_style(decision.level, top)),
            Text(decision.reason, style="" if decision.feasible else "bold red"),
        )
    return grid


def _nothing(job: Job) -> str:
    if job.costs:
        return "no decision was made about this job yet"
    return (
        "no decision was made about this job: no agent is attached to it, so there is nothing to turn "
        "(start a PyTorch job with `greend run`, or call greend_agent.attach in it)"
    )
