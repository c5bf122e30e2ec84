"""`greend history`: energy over time, by component, or by consumer."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from greend.cli import options
from greend.cli.output import QUALITY_STYLES, approx, console, print_json, table
from greend.cli.when import BY_TIME, edges, label, local_now, parse_when
from greend.errors import UsageError
from greend.units import ENERGY_J, format_duration, format_energy, format_error, format_power, significant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from greend.store.engine import Store
    from greend.store.queries import ComponentRow, ConsumerRow, TimeRow

SPAN = {
    "minute": timedelta(hours=1),
    "hour": timedelta(days=1),
    "day": timedelta(days=7),
    "month": timedelta(days=365),
}
"""How far back each resolution looks when nothing is said."""

BAR_LEAST, BAR_MOST = 8, 20
"""Characters of a bar; where there is room for less, there is none."""

_ORDER = list(QUALITY_STYLES).index


@click.command()
@click.option(
    "--by",
    type=click.Choice([*BY_TIME, "component", "job", "consumer"]),
    default="hour",
    show_default=True,
    help="What a row stands for.",
)
@click.option("--since", "-S", metavar="WHEN", help="2026-11-02 14:00, today, yesterday, -2h, 7d, @epoch.")
@click.option("--until", "-U", metavar="WHEN", help="As --since; now when left out.")
@click.option(
    "--unit", type=click.Choice(["auto", *ENERGY_J]), default="auto", show_default=True, help="Of energy."
)
@options.where
@options.as_json
def command(
    by: str,
    since: str | None,
    until: str | None,
    unit: str,
    database: Path | None,
    socket_path: Path | None,
    as_json: bool,
) -> int:
    """Say what was used: over time, by component, by job, or by every consumer (jobs, other, idle)."""
    now = local_now()
    end = parse_when(until, now) if until else now
    start = parse_when(since, now) if since else end - SPAN.get(by, timedelta(days=1))
    if start.timestamp() >= end.timestamp():
        raise UsageError(f"--since {start:%Y-%m-%d %H:%M} does not lie before --until {end:%Y-%m-%d %H:%M}")
    with options.history(database, socket_path) as store:
        if by in BY_TIME:
            rows = _by_time(store, start, end, by)
            print_json(_time_json(rows, by)) if as_json else _print_time(rows, by, unit, now)
        elif by == "component":
            found = _by_component(store, start, end)
            print_json(_part_json(found, by)) if as_json else _print_parts(found, unit)
        else:
            whose = _by_consumer(store, start, end, jobs_only=by == "job")
            print_json(_part_json(whose, by)) if as_json else _print_parts(whose, unit)
    return 0


Part = tuple[str, "ComponentRow | ConsumerRow"]


def _by_time(store: Store, start: datetime, end: datetime, by: str) -> list[TimeRow]:
    from greend.store import queries

    with store.read() as connection:
        known = queries.span(connection)
        if known is None:
            return []
        # Empty rows before the first and after the last sample say nothing; those in between are gaps.
        start = max(start, datetime.fromtimestamp(known[0], start.tzinfo), key=datetime.timestamp)
        end = min(end, datetime.fromtimestamp(known[1], start.tzinfo), key=datetime.timestamp)
        if start.timestamp() >= end.timestamp():
            return []
        bounds = edges(start, end, by)
        return queries.energy_by_time(connection, bounds[0], bounds[-1], bounds)


def _by_component(store: Store, start: datetime, end: datetime) -> list[Part]:
    from greend.store import queries

    with store.read() as connection:
        found = queries.energy_by_component(connection, *_seconds(start, end))
    return [(str(row.component), row) for row in found]


def _by_consumer(store: Store, start: datetime, end: datetime, jobs_only: bool) -> list[Part]:
    from greend.store import jobs, queries

    with store.read() as connection:
        found = queries.energy_by_consumer(connection, *_seconds(start, end))
        names = {s.job.id: s.job.name for s in jobs.jobs(connection, -1)}
    return [
        (f"{row.consumer.name}  {names.get(row.consumer.name, '')}".rstrip() or row.consumer.kind, row)
        for row in found
        if row.consumer.kind == "job" or not jobs_only
    ]


def _seconds(start: datetime, end: datetime) -> tuple[int, int]:
    return math.floor(start.timestamp()), math.ceil(end.timestamp()) + 1


def _print_time(rows: Sequence[TimeRow], by: str, unit: str, now: datetime) -> None:
    out = console()
    if not rows:
        out.print(Text("nothing was recorded in this time", style="dim"))
        return
    total_j = math.fsum(row.energy_j or 0.0 for row in rows)
    largest_j = max((row.energy_j or 0.0 for row in rows), default=0.0)
    scale = unit if unit != "auto" else format_energy(largest_j).split()[1]
    # By kind, so that a machine of eight GPUs fits too; `--by component` has each device.
    kinds = sorted({c.kind for row in rows for c in row.components})

    # As many decimals in every cell as give the largest one three digits.
    decimals = len(significant(largest_j / ENERGY_J[scale]).partition(".")[2])

    def figure(energy_j: float | None) -> str:
        return "?" if energy_j is None else f"{energy_j / ENERGY_J[scale]:.{decimals}f}"

    def of_kind(row: TimeRow, kind: str) -> float | None:
        found = [energy_j for c, energy_j in row.components.items() if c.kind == kind]
        return math.fsum(found) if found else None

    lines: list[list[str | Text]] = []
    for row in rows:
        power_w = row.energy_j / row.seconds_covered if row.energy_j and row.seconds_covered else None
        lines.append(
            [
                label(row.start_s, by, now.tzinfo),
                *[figure(of_kind(row, kind)) for kind in kinds],
                Text(approx(figure(row.energy_j), row.quality.value), style="bold"),
                approx(format_power(power_w), row.quality.value),
            ]
        )
    worst = max(
        (row.quality.value for row in rows if row.energy_j is not None), key=_ORDER, default="missing"
    )
    sums = [math.fsum(of_kind(row, kind) or 0.0 for row in rows) for kind in kinds]
    footer = ["sum", *map(figure, sums), approx(figure(total_j), worst), ""]
    columns = [by, *kinds, f"total {scale}", "average"]
    room = out.width - out.measure(table(columns, lines, footer)).maximum - 2
    if room >= BAR_LEAST:
        columns, footer = [*columns, ""], [*footer, ""]
        width = min(room, BAR_MOST)
        lines = [
            [*line, _bar(row.energy_j or 0.0, largest_j, width)]
            for line, row in zip(lines, rows, strict=True)
        ]
    left = (0, len(columns) - 1) if room >= BAR_LEAST else (0,)
    out.print(table(columns, lines, footer, left=left))
    covered_s = math.fsum(min(row.seconds_covered, row.end_s - row.start_s) for row in rows)
    out.print(Text(f" {format_duration(covered_s)} recorded; at worst {worst}", style="dim"))


def _bar(energy_j: float, largest_j: float, width: int) -> Text:
    eighths = round(width * 8 * energy_j / largest_j) if largest_j > 0 else 0
    whole, rest = divmod(eighths, 8)
    return Text("█" * whole + (" ▏▎▍▌▋▊▉"[rest] if rest else ""), style="cyan")


def _print_parts(parts: Sequence[Part], unit: str) -> None:
    out = console()
    if not parts:
        out.print(Text("nothing was recorded in this time", style="dim"))
        return
    total_j = math.fsum(row.energy_j or 0.0 for _, row in parts)
    lines: list[list[str | Text]] = [
        [
            name,
            approx(format_energy(row.energy_j, unit), row.quality.value),
            f"{(row.energy_j or 0.0) / total_j * 100:.1f} %" if total_j else "-",
            Text(row.quality.value, style=QUALITY_STYLES.get(row.quality.value, "")),
            format_error(row.error),
            row.source,
        ]
        for name, row in parts
    ]
    worst = max((row.quality.value for _, row in parts), key=_ORDER)
    footer = ["sum", approx(format_energy(total_j, unit), worst), "", "", "", ""]
    columns = ["", "energy", "share", "quality", "95 %", "source"]
    out.print(table(columns, lines, footer, left=(0, 3, 5), wrap=(0, 5)))


def _time_json(rows: Sequence[TimeRow], by: str) -> dict[str, Any]:
    return {
        "by": by,
        "rows": [
            {
                "start": _utc(row.start_s),
                "end": _utc(row.end_s),
                "energy_j": row.energy_j,
                "relative_error": row.error,
                "quality": row.quality.value,
                "coverage": min(row.seconds_covered / (row.end_s - row.start_s), 1.0),
                "components": {str(c): {"energy_j": j} for c, j in row.components.items()},
            }
            for row in rows
        ],
    }


def _part_json(parts: Sequence[Part], by: str) -> dict[str, Any]:
    return {
        "by": by,
        "rows": [
            {
                **_named(by, name, row),
                "energy_j": row.energy_j,
                "relative_error": row.error,
                "quality": row.quality.value,
                "source": row.source,
            }
            for name, row in parts
        ],
    }


def _named(by: str, name: str, row: ComponentRow | ConsumerRow) -> dict[str, str]:
    """Name a part: of a job, its id and apart from it the name that people gave it."""
    consumer = getattr(row, "consumer", None)
    if consumer is None or not consumer.name:
        return {by: name}
    return {by: consumer.name, "name": name.removeprefix(consumer.name).strip()}


def _utc(seconds: int) -> str:
    from datetime import UTC

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
