"""`greend hold`: keep a job at a level or below, for as long as a person wants it."""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode

import click
from rich.text import Text

from greend import wire
from greend.cli import options
from greend.cli.limits import DURATION
from greend.cli.output import console, plain, print_json, table
from greend.cli.when import local_now
from greend.client import Client
from greend.errors import DaemonNotRunning, UsageError
from greend.units import format_duration

SILENCE_S = 120.0
"""The daemon pings three times in each lease; one that says nothing for so long holds nothing either."""


@click.command()
@click.argument("job", required=False)
@click.option("--level", type=click.IntRange(min=0), help="The highest level that it may run at.")
@click.option("--reason", help="Why, for whoever asks `greend why`.")
@click.option("--for", "for_s", type=DURATION, help="End the hold by itself, e.g. after 2h; returns at once.")
@click.option("--release", metavar="HOLD", help="End a hold, by its id.")
@options.socket
@options.as_json
def command(
    job: str | None,
    level: int | None,
    reason: str | None,
    for_s: float | None,
    release: str | None,
    socket_path: Path | None,
    as_json: bool,
) -> int:
    """Keep the running JOB at --level or below; without JOB, list the holds in force.

    With --for it returns at once. Otherwise the hold lives as long as this command: Ctrl-C ends it, and
    so does whatever else ends it.
    """
    client = Client(socket_path)
    if release is not None:
        client.post(f"/holds/{release}/release")
        print_json({"released": release}) if as_json else print(f"hold {release} is released")
        return 0
    if job is None:
        _list([wire.HoldNow(**hold) for hold in client.get("/holds")], as_json)
        return 0
    if level is None or not reason:
        raise UsageError(f"hold {job}: say how low and why, as --level 0 --reason 'a demo until noon'")
    live = options.live_job(job, socket_path)
    request = wire.HoldRequest(level, reason, for_s, _user())
    what = f"job {live.id} ({live.name}) is held at level {level} or below"
    if for_s is not None:
        hold = wire.HoldReply(**client.post(f"/jobs/{live.id}/holds", request)).hold
        until = f"for {format_duration(for_s)}; `greend hold --release {hold}` ends it earlier"
        print_json({"hold": hold, "job": live.id}) if as_json else print(f"{what} {until}")
        return 0
    return _stay(client, live.id, request, what, as_json)


def _stay(client: Client, job: str, request: wire.HoldRequest, what: str, as_json: bool) -> int:
    """Hold as long as this process lives: the daemon drops the hold when the connection ends."""
    query = urlencode({"level": request.level, "reason": request.reason, "name": request.name})
    for event, data in client.follow(f"/jobs/{job}/hold?{query}", SILENCE_S):
        if event == "hold":
            hold = str(json.loads(data)["hold"])
            said = json.dumps({"hold": hold, "job": job}) if as_json else f"{what} until Ctrl-C (hold {hold})"
            print(said, flush=True)
        elif event == "released":
            return _over(json.loads(data)["reason"], as_json)
    if all(live.id != job for live in options.status(client.path).jobs):
        return _over(f"job {job} has ended", as_json)
    raise DaemonNotRunning(f"hold {job}: the daemon stopped, and the hold with it")


def _over(reason: str, as_json: bool) -> int:
    print(json.dumps({"over": reason}) if as_json else f"the hold is over: {reason}")
    return 0


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _list(holds: Sequence[wire.HoldNow], as_json: bool) -> None:
    if as_json:
        print_json({"holds": [asdict(hold) for hold in holds]})
        return
    if not holds:
        console().print(Text("no hold is in force", style="dim"))
        return
    now_s = local_now().timestamp()
    rows: list[list[str | Text]] = [
        [
            hold.hold,
            hold.job,
            f"≤ {hold.level}",
            hold.name,
            datetime.fromtimestamp(hold.since_wall_ns / 1e9).astimezone().strftime("%m-%d %H:%M"),
            f"for {format_duration(hold.until_wall_ns / 1e9 - now_s)} more"
            if hold.until_wall_ns is not None
            else f"while process {hold.pid} lives",
            plain(hold.reason),
        ]
        for hold in holds
    ]
    columns = ["hold", "job", "level", "by", "since", "until", "reason"]
    console().print(table(columns, rows, left=(0, 1, 3, 4, 5, 6), wrap=(6,)))
