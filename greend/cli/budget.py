"""`greend budget`: what jobs, days and months may use, and how much of it they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.text import Text

from greend import wire
from greend.cli import options, spending
from greend.cli.limits import asked, changed
from greend.cli.output import console, print_json
from greend.cli.when import local_now
from greend.client import Client
from greend.errors import UsageError
from greend.types import Limits

F = TypeVar("F", bound=Callable[..., Any])

NONE = (
    "no budget is set: `greend run --budget 30kJ -- CMD` gives a job one, "
    "`greend budget set --day --energy 2kWh` the machine"
)


def period_option(command: F) -> F:
    """Add --day and --month."""
    day = click.option("--day", "period", flag_value="day", help="Of all jobs of this machine, each day.")
    month = click.option("--month", "period", flag_value="month", help="Of all its jobs, each month.")
    return day(month(command))


@click.group(invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> int | None:
    """Say what a running job, or all jobs of a day or a month, may use; and see what is left of it.

    Alone it shows all budgets.
    """
    if context.invoked_subcommand is not None:
        return None
    _show(None, None, None, as_json=False)
    return 0


@command.command("set")
@click.argument("job", required=False)
@period_option
@asked("--energy")
@options.socket
@options.as_json
def set_(
    job: str | None, period: str | None, named: dict[str, Any], socket_path: Path | None, as_json: bool
) -> int:
    """Set what the running JOB, or all jobs of each --day or --month, may use; what is not named stays.

    greend acts on it at once, since it is given by hand (a policy only advises, unless it says otherwise).
    """
    _one_of(job, period)
    if not named:
        raise UsageError("set a budget: name at least one limit, as --energy 30kJ or --power 40W")
    client = Client(socket_path)
    if job is not None:
        live = options.live_job(job, socket_path)
        client.post(f"/jobs/{live.id}/limits", wire.LimitsRequest(changed(live.limits, named)))
        job = live.id
    else:
        client.post("/budgets", _period_request(client, str(period), named))
    _show(socket_path, job, period, as_json)
    return 0


@command.command()
@click.argument("job", required=False)
@options.socket
@options.as_json
def show(job: str | None, socket_path: Path | None, as_json: bool) -> int:
    """Show all budgets, or those of the running JOB: what is spent, what is left, and the expected end."""
    _show(socket_path, options.live_job(job, socket_path).id if job is not None else None, None, as_json)
    return 0


@command.command()
@click.argument("job", required=False)
@period_option
@options.socket
@options.as_json
def clear(job: str | None, period: str | None, socket_path: Path | None, as_json: bool) -> int:
    """Take all limits off the running JOB, or the budget of the --day or --month off the machine."""
    _one_of(job, period)
    client = Client(socket_path)
    if job is not None:
        live = options.live_job(job, socket_path)
        client.post(f"/jobs/{live.id}/limits", wire.LimitsRequest(Limits()))
        said = f"job {live.id} ({live.name}) has no limit any more"
        job = live.id
    else:
        client.post("/budgets", wire.PeriodRequest(str(period)))
        said = f"the {period} has no budget any more"
    print_json({"cleared": job or period}) if as_json else print(said)
    return 0


def _one_of(job: str | None, period: str | None) -> None:
    if (job is None) == (period is None):
        raise UsageError("whose budget: name either a running job, or --day or --month")


def _period_request(client: Client, period: str, named: Mapping[str, Any]) -> wire.PeriodRequest:
    odd = [field for field in named if field not in spending.KINDS]
    if odd:
        raise UsageError(f"a {period} is limited by --energy, --carbon or --cost; all else is for a job")
    before = next((span for span in _periods(client) if span.period == period), None)
    kept = {kind: getattr(before, kind) for kind in spending.KINDS if before is not None}
    return wire.PeriodRequest(period, **{**kept, **named})


def _periods(client: Client) -> list[wire.PeriodNow]:
    return [wire.PeriodNow(**found) for found in client.get("/budgets")]


def _show(socket_path: Path | None, job: str | None, period: str | None, as_json: bool) -> None:
    """Print all budgets, or those of one job or one period."""
    spans = _periods(Client(socket_path)) if job is None else []
    jobs = options.status(socket_path).jobs if period is None else []
    now_ns = round(local_now().timestamp() * 1e9)
    found = [s for span in spans if period in (None, span.period) for s in spending.of_period(span, now_ns)]
    found += [s for live in jobs if job in (None, live.id) for s in spending.of_job(live, now_ns)]
    if as_json:
        print_json({"budgets": [spent.json() for spent in found]})
    elif found:
        console().print(spending.table_of(found))
    else:
        console().print(Text(NONE, style="dim"))
