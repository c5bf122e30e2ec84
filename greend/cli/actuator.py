"""`greend actuator`: the privileged process that systemd starts when the daemon wants a device limit."""

from __future__ import annotations

from pathlib import Path

import click

from greend.actuator.client import SOCKET
from greend.actuator.main import STATE, run
from greend.cli.daemon import log_to_stderr


@click.command()
@click.option(
    "--socket",
    "path",
    type=click.Path(path_type=Path),
    default=SOCKET,
    help="Listen here (unless systemd does).",
)
@click.option("--state", type=click.Path(path_type=Path), default=STATE, help="Folder of the undo record.")
@click.option("--allow", multiple=True, metavar="USER", help="Who may ask, beside root; may be given again.")
@click.option(
    "--idle-s", type=click.FloatRange(min=0), help="With systemd's socket: end after so long unused."
)
def command(path: Path, state: Path, allow: tuple[str, ...], idle_s: float | None) -> int:
    """Turn GPU and CPU power limits and CPU quotas for the daemon, and put them back whoever dies.

    What is turned is written down first; what a killed actuator left turned is put back at the start.
    """
    log_to_stderr()
    run(path, state, allow, idle_s)
    return 0
