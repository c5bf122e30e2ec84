"""`greend status`: how much now, today and this month, and how each figure is known."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from greend.cli import options
from greend.cli.output import QUALITY_STYLES, approx, console, force, hanging, plain, print_json, table
from greend.cli.summary import level_text, share_text
from greend.cli.when import local_now
from greend.errors import DaemonNotRunning, PermissionDenied, StoreError
from greend.units import format_duration, format_energy, format_error, format_power

if TYPE_CHECKING:
    from rich.console import Console

    from greend.daemon.status import Status
    from greend.store.ledger import Energy
    from greend.store.queries import ComponentRow


@click.command()
@options.where
@options.as_json
def command(database: Path | None, socket_path: Path | None, as_json: bool) -> int:
    """Say how much now, today and this month, from which source, and how well it is known."""
    status = options.ask_status(socket_path) if database is None else None
    now = local_now()
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    day: Energy | None = None
    month: Energy | None = None
    components: list[ComponentRow] = []
    try:
        day, month, components = _sums(database, socket_path, today, now)
    except (StoreError, PermissionDenied) as error:
        # With a daemon, the figures of now are an answer too.
        if status is None:
            if database is not None or type(error) is not StoreError:
                raise
            raise DaemonNotRunning(f"the daemon is not running, and {error}") from error
    if as_json:
        print_json(_as_json(status, day, month, components))
    else:
        _print(console(), status, day, month, components)
    if status is None and database is None:
        raise DaemonNotRunning(
            "the daemon is not running; this is what its history says. Start it with `greend daemon`, "
            "or `sudo systemctl start greend` where it is a service"
        )
    return 0


def _sums(
    database: Path | None, socket_path: Path | None, today: datetime, now: datetime
) -> tuple[Energy, Energy, list[ComponentRow]]:
    from greend.store import queries

    end_s = int(now.timestamp()) + 60
    day_s, month_s = int(today.timestamp()), int(today.replace(day=1).timestamp())
    with options.history(database, socket_path) as store, store.read() as connection:
        return (
            queries.total_energy(connection, day_s, end_s),
            queries.total_energy(connection, month_s, end_s),
            queries.energy_by_component(connection, day_s, end_s),
        )


def _print(
    out: Console, status: Status | None, day: Energy | None, month: Energy | None, today: list[ComponentRow]
) -> None:
    if status is not None:
        _print_header(out, status)
    for name, sum_ in (("today", day), ("month", month)):
        energy = "?" if sum_ is None else approx(format_energy(sum_.energy_j), sum_.quality.value)
        error = "" if sum_ is None or sum_.energy_j is None else format_error(sum_.error)
        out.print(Text.assemble((f"  {name:<7}", "dim"), (f"{energy:>10}", "bold"), f" {error}"))
    out.print(_components(status, today))
    if status is not None:
        _print_jobs(out, status)
        if status.problems:
            out.print(
                hanging([[Text(f"  {n}:", "yellow"), plain(p, "yellow")] for n, p in status.problems.items()])
            )


def _print_header(out: Console, status: Status) -> None:
    state = ("ok", "green") if not status.problems else ("degraded", "yellow")
    out.print(
        Text.assemble(
            ("greend ", "bold"),
            f"{status.version} on {status.host}   up {format_duration(status.uptime_s)}   "
            f"every {status.period_s:g} s   ",
            state,
        )
    )
    modelled = any(c.quality != "measured" for c in status.components)
    power = approx(format_power(status.power_w), "modelled" if modelled else "measured")
    out.print()
    out.print(Text.assemble(("  now    ", "dim"), (f"{power:>10}", "bold"), f" {format_error(status.error)}"))


def _components(status: Status | None, today: list[ComponentRow]) -> Any:
    live = {c.name: c for c in status.components} if status is not None else {}
    sums = {str(row.component): row for row in today}
    rows: list[list[str | Text]] = []
    for name in dict.fromkeys([*live, *sums]):
        now, row = live.get(name), sums.get(name)
        quality = now.quality if now is not None else row.quality.value if row is not None else "missing"
        error = now.error if now is not None else row.error if row is not None else None
        rows.append(
            [
                name,
                approx(format_power(now.power_w), quality) if now is not None else "-",
                approx(format_energy(row.energy_j), quality) if row is not None else "-",
                now.source if now is not None else row.source if row is not None else "",
                Text(quality, style=QUALITY_STYLES.get(quality, "")),
                format_error(error),
            ]
        )
    return table(["component", "now", "today", "source", "quality", "95 %"], rows, left=(0, 3, 4), wrap=(3,))


def _print_jobs(out: Console, status: Status) -> None:
    if not status.jobs:
        out.print(Text("  no job runs; start one with `greend run -- python train.py`", style="dim"))
        return
    rows: list[list[str | Text]] = [
        [
            job.id,
            job.name,
            format_energy(job.spent_j),
            share_text(job.spent_j, job.budget_j),
            f"{job.steps_done}" + (f" of {job.steps_total}" if job.steps_total is not None else ""),
            level_text(job.level, job.top),
            Text.assemble(force(job), plain(job.by)),
        ]
        for job in status.jobs
    ]
    columns = ["job", "name", "used", "of budget", "steps", "level", "held by"]
    out.print(table(columns, rows, left=(0, 1, 6), wrap=(1, 6)))


def _as_json(
    status: Status | None, day: Energy | None, month: Energy | None, today: list[ComponentRow]
) -> dict[str, Any]:
    def energy(sum_: Energy | None) -> dict[str, Any]:
        if sum_ is None:
            return {"energy_j": None, "relative_error": None, "quality": "missing"}
        return {"energy_j": sum_.energy_j, "relative_error": sum_.error, "quality": sum_.quality.value}

    return {
        "running": status is not None,
        "daemon": asdict(status) if status is not None else None,
        "today": energy(day),
        "month": energy(month),
        "components_today": [
            {"component": str(row.component), **energy(row), "source": row.source} for row in today
        ],
    }
