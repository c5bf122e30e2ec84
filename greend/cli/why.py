"""`greend why`: every change of a job's level, with the reason it was made for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from greend.cli import options
from greend.cli.bounds import print_moment
from greend.cli.jobs import job_json
from greend.cli.output import console, force, hanging, level_style, plain, print_json
from greend.cli.when import local_now, parse_when
from greend.errors import NotFound

if TYPE_CHECKING:
    from greend.types import Decision, Job


@click.command()
@click.argument("job")
@click.option("--at", help="One moment, with all bounds: a step (as 8412), or a time (as 14:02 or -10m).")
@click.option("--bounds", is_flag=True, help="At each change, what every constraint allowed.")
@options.where
@options.as_json
def command(
    job: str, at: str | None, bounds: bool, database: Path | None, socket_path: Path | None, as_json: bool
) -> int:
    """Explain why JOB ran at the levels it ran at, newest decision last.

    With --at, how things stood at one moment: what each constraint allowed, which one bound, and the
    estimates that it was reckoned from.
    """
    from greend.store import jobs

    with options.history(database, socket_path) as store, store.read() as connection:
        found = jobs.job(connection, job)
        decisions = jobs.decisions(connection, found.job.id)
    if at is not None:
        decisions = [_in_force(decisions, at, found.job)]
    if as_json:
        print_json({"job": job_json(found), "decisions": [asdict(d) for d in decisions]})
        return 0
    out = console()
    top = max(len(found.job.costs) - 1, 0)
    if not decisions:
        out.print(Text(_nothing(found.job), style="dim"))
    elif bounds or at is not None:
        for decision in decisions:
            print_moment(out, decision, top)
    else:
        out.print(hanging([_row(decision, top) for decision in decisions], figures=(1, 2)))
    return 0


def _in_force(decisions: Sequence[Decision], at: str, job: Job) -> Decision:
    """Return the decision that held at a step or a time. Raises NotFound, UsageError."""
    if at.isdecimal():
        made = [decision for decision in decisions if decision.at_step <= int(at)]
    else:
        now = local_now()
        if job.ended_wall_ns is not None:  # 14:02 is that of the day on which it ran
            now = datetime.fromtimestamp(job.ended_wall_ns / 1e9, now.tzinfo)
        moment_ns = parse_when(at, now).timestamp() * 1e9
        made = [decision for decision in decisions if decision.at_wall_ns <= moment_ns]
    if made:
        return made[-1]
    if not decisions:
        raise NotFound(f"explain job {job.id} at {at}: {_nothing(job)}")
    first = decisions[0]
    raise NotFound(
        f"explain job {job.id} at {at}: nothing was decided by then; the first decision was made at step "
        f"{first.at_step}, {clock_of(first)}"
    )


def clock_of(decision: Decision) -> str:
    """Return the local time of a decision."""
    return datetime.fromtimestamp(decision.at_wall_ns / 1e9).astimezone().strftime("%H:%M:%S")


def _row(decision: Decision, top: int) -> list[Text]:
    changed = decision.previous is not None and decision.previous != decision.level
    level = f"{decision.previous} → {decision.level}" if changed else f"{decision.level}"
    return [
        Text(clock_of(decision), style="dim"),
        Text(f"step {decision.at_step}", style="dim"),
        Text(f"level {level}", style=level_style(decision.level, top)),
        Text.assemble(force(decision), plain(decision.reason, style="" if decision.feasible else "bold red")),
    ]


def _nothing(job: Job) -> str:
    if job.costs:
        return "no decision was made about this job yet"
    return (
        "no decision was made about this job: no agent is attached to it, so there is nothing to turn "
        "(start a PyTorch job with `greend run`, or call greend_agent.attach in it)"
    )
