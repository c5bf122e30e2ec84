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
from greend.cli.output import console, hanging, level_style, plain, print_json

if TYPE_CHECKING:
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
        top = max(len(found.job.costs) - 1, 0)
        out.print(hanging([_row(decision, top) for decision in decisions], figures=(1, 2)))
    return 0


def _row(decision: Decision, top: int) -> list[Text]:
    at = datetime.fromtimestamp(decision.at_wall_ns / 1e9).astimezone().strftime("%H:%M:%S")
    changed = decision.previous is not None and decision.previous != decision.level
    level = f"{decision.previous} → {decision.level}" if changed else f"{decision.level}"
    return [
        Text(at, style="dim"),
        Text(f"step {decision.at_step}", style="dim"),
        Text(f"level {level}", style=level_style(decision.level, top)),
        plain(decision.reason, style="" if decision.feasible else "bold red"),
    ]


def _nothing(job: Job) -> str:
    if job.costs:
        return "no decision was made about this job yet"
    return (
        "no decision was made about this job: no agent is attached to it, so there is nothing to turn "
        "(start a PyTorch job with `greend run`, or call greend_agent.attach in it)"
    )
