"""`greend doctor`: what is measured, what is modelled, why, and the fix."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.text import Text

from greend.cli import options
from greend.cli.output import console, hanging, plain, print_json
from greend.errors import GreendError
from greend.units import format_duration, format_error, significant

STYLES = {"ok": "green", "model": "yellow", "none": "dim", "part": "yellow", "fail": "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `ok`, `none` (not here), `model` (modelled instead), `part`, or `fail`."""

    state: str
    name: str
    text: str


@click.command()
@options.where
@options.as_json
def command(database: Path | None, socket_path: Path | None, as_json: bool) -> int:
    """Check daemon, database, counters and coefficients; ends with 1 when something is broken."""
    findings = [*_daemon(socket_path), *_database(database, socket_path), *_counters()]
    failed = sum(finding.state == "fail" for finding in findings)
    modelled = sum(finding.state == "model" for finding in findings)
    if as_json:
        print_json({"findings": [asdict(f) for f in findings], "errors": failed, "modelled": modelled})
        return 1 if failed else 0
    out = console()
    out.print(
        hanging(
            [[Text(f" [{f.state}]", STYLES[f.state]), Text(f.name, "bold"), plain(f.text)] for f in findings]
        )
    )
    out.print(Text(f" {modelled} components modelled, {failed} errors", style="dim"))
    return 1 if failed else 0


def _daemon(socket_path: Path | None) -> list[Finding]:
    try:
        status = options.ask_status(socket_path)
    except GreendError as error:
        return [Finding("fail", "daemon", str(error))]
    if status is None:
        return [Finding("fail", "daemon", "not running; start it with `greend daemon`")]
    age = format_duration(status.sample_age_s)
    found = [Finding("ok", "daemon", f"running, pid {status.pid}, last sample {age} ago")]
    found += [Finding("fail", name, problem) for name, problem in status.problems.items()]
    return found


def _database(database: Path | None, socket_path: Path | None) -> list[Finding]:
    from greend.store import check

    try:
        with options.history(database, socket_path) as store, store.read() as connection:
            faults = [*check.integrity(connection), *check.conservation(connection)]
            size_mb = store.path.stat().st_size / 1e6
            path = store.path
    except GreendError as error:
        return [Finding("fail", "database", str(error))]
    if faults:
        return [Finding("fail", "database", f"{path}: {fault}") for fault in faults]
    text = f"{path}, {significant(size_mb)} MB, whole; the parts add up to the machine"
    return [Finding("ok", "database", text)]


def _counters() -> list[Finding]:
    """Probe the counters as the user who asks, and say which meter would price each component here."""
    from greend.clock import SystemClock
    from greend.config import Sources
    from greend.daemon.preview import preview
    from greend.daemon.sources import SourceSet

    clock = SystemClock()
    try:
        sources = SourceSet.of(Sources(), clock)
    except GreendError as error:
        return [Finding("fail", "sources", str(error))]
    found = [Finding("none" if why else "ok", name, why or "works") for name, why in sources.states.items()]
    for energy in preview(sources, clock):
        meter = energy.meter
        state = "ok" if meter.quality.value == "measured" else "model"
        text = f"{meter.source}, {format_error(meter.error)}, {meter.quality.value} ({meter.table})"
        found.append(Finding(state, str(energy.component), text))
    sources.close()
    return found
