"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from greend import config
from greend.choice import KNOBS, parse_knobs, parse_levels
from greend.client import Client
from greend.errors import DaemonNotRunning, GreendError, NotFound
from greend.units import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from greend.daemon.status import JobNow, Status
    from greend.store.engine import Store

F = TypeVar("F", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, in SI units.")
database = click.option(
    "--db",
    "database",
    type=click.Path(path_type=Path, readable=False),
    envvar="GREEND_DB",
    help="Read this history file instead of the daemon's.",
)
socket = click.option(
    "--socket",
    "socket_path",
    type=click.Path(path_type=Path, readable=False),
    envvar="GREEND_SOCKET",
    help="The daemon's socket.",
)


def choice(command: F) -> F:
    """Add --levels and --knobs, as the text that the agent will read."""
    levels = click.option(
        "--levels",
        default="4",
        show_default=True,
        callback=_checked(parse_levels),
        help="Resource levels: how many, or what each costs, as 0.25,0.5,1.",
    )
    knobs = click.option(
        "--knobs",
        callback=_checked(parse_knobs),
        help=f"What may be turned down, of {', '.join(KNOBS)}; otherwise the first three.",
    )
    return levels(knobs(command))


def _checked(
    parse: Callable[[str], object],
) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    def check(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
        try:
            if text is not None:
                parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error), context, parameter) from error
        return text

    return check


def where(command: F) -> F:
    """Add --db and --socket."""
    return database(socket(command))


def settings() -> config.Config:
    """Return the user's settings, else the machine's, else the defaults. Raises ConfigError."""
    own = config.config_path("user").exists() or not config.SYSTEM_CONFIG.exists()
    return config.load(None, "user" if own else "system")


def status(socket_path: Path | None) -> Status:
    """Return the daemon's status. Raises DaemonNotRunning, and what else `Client.get` raises."""
    import msgspec

    from greend.daemon.status import Status

    return msgspec.convert(Client(socket_path).get("/status"), Status)


def live_job(word: str, socket_path: Path | None) -> JobNow:
    """Return the running job of that id or name, or the only one whose id begins so. Raises NotFound."""
    jobs = status(socket_path).jobs
    found = [job for job in jobs if word in (job.id, job.name)]
    found = found or [job for job in jobs if word and job.id.startswith((word, f"j-{word}"))]
    if len(found) == 1:
        return found[0]
    if found:
        raise NotFound(f"find job {word!r}: several run: {', '.join(job.id for job in found)}")
    if not jobs:
        raise NotFound(f"find job {word!r}: no job runs; start one with `greend run`")
    hint = nearest(word, [name for job in jobs for name in (job.id, job.name)])
    raise NotFound(f"find job {word!r}: no such job runs{hint}; `greend status` lists those that do")


def ask_status(socket_path: Path | None) -> Status | None:
    """Return the daemon's status, or None when no daemon runs."""
    try:
        return status(socket_path)
    except DaemonNotRunning:
        return None


@contextmanager
def history(database: Path | None, socket_path: Path | None) -> Iterator[Store]:
    """Open the history for reading, with what the daemon still has in memory written first.

    A named file is read as it is, also one copied from another machine. Raises StoreError in words.
    """
    from greend.store.engine import Store

    path = database
    if path is None:
        path = _from_daemon(socket_path) or _default()
    store = Store.read_only(path)
    try:
        yield store
    finally:
        store.close()


def _from_daemon(socket_path: Path | None) -> Path | None:
    client = Client(socket_path)
    try:
        client.post("/flush")
        return Path(client.get("/status")["database"])
    except GreendError:
        return None


def _default() -> Path:
    """Where a history lies when no daemon can be asked: the user's own, else the system's."""
    own = config.database_path(config.Config(), "user")
    system = config.SYSTEM_DATABASE
    return system if not own.exists() and system.exists() and os.access(system.parent, os.X_OK) else own
