"""`greend run`: a command as a job, with its own exit code."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import click

from greend import wire
from greend.cli import options
from greend.cli.child import Child
from greend.cli.limits import asked, changed
from greend.client import Client
from greend.errors import DaemonNotRunning, GreendError
from greend.types import Limits

FAILED = 125
"""greend itself failed, as distinct from anything that the command may end with."""


@click.command(context_settings={"allow_interspersed_args": False})
@asked("--budget")
@click.option("--steps", type=click.IntRange(min=1), help="Optimizer steps that the job will make.")
@options.choice
@click.option("--name", help="What to call the job; otherwise its script.")
@click.option("--no-agent", is_flag=True, help="Measure only: nothing is attached to the training loop.")
@options.socket
@options.as_json
@click.argument("words", nargs=-1, required=True, metavar="-- CMD...")
def command(
    named: dict[str, Any],
    steps: int | None,
    levels: str,
    knobs: str | None,
    name: str | None,
    no_agent: bool,
    socket_path: Path | None,
    as_json: bool,
    words: tuple[str, ...],
) -> int:
    """Run CMD as a job. Its PyTorch loop gets resource levels without a change to the script.

    With --json the last line on stdout is the job. The exit code is CMD's own; 125: greend failed, 126:
    CMD cannot be executed, 127: not found.
    """
    limits = changed(Limits(), named)
    client = Client(socket_path)
    child = Child(words)
    try:
        request = wire.JobRequest(child.pid, list(words), name, steps=steps, limits=limits)
        job = wire.JobReply(**client.post("/jobs", request)).job
    except GreendError as error:
        if named or os.environ.get(wire.ENV_REQUIRED) == "1":
            child.abandon()
            print(f"greend: the command was not started: {error}", file=sys.stderr)
            return FAILED
        _say_unmeasured(error, client.path)
        return child.go({}).code
    environment = {wire.ENV_JOB: job, wire.ENV_SOCKET: str(client.path), wire.ENV_LEVELS: levels}
    if knobs is not None:
        environment[wire.ENV_KNOBS] = knobs
    if not no_agent and levels != "1":
        environment |= _with_agent()
    end = child.go(environment)
    try:
        client = Client(client.path, timeout_s=15.0)
        client.post(f"/jobs/{job}/end", wire.EndRequest(end.code, end.cpu_s))
        _summarise(job, client.path, as_json)
    except GreendError as error:
        print(f"greend: the end of job {job} could not be told to the daemon: {error}", file=sys.stderr)
    return end.code


def _say_unmeasured(error: GreendError, path: Path) -> None:
    what = f"no daemon at {path}" if isinstance(error, DaemonNotRunning) else str(error)
    print(
        f"greend: {what}; the command runs unmeasured ({wire.ENV_REQUIRED}=1 makes this an error)",
        file=sys.stderr,
    )


def _with_agent() -> dict[str, str]:
    """Return the environment that attaches the agent: its shim comes first on Python's path."""
    found = importlib.util.find_spec("greend_agent")
    if found is None or not found.submodule_search_locations:
        return {}
    shim = Path(found.submodule_search_locations[0]) / "shim"
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{shim}{os.pathsep}{before}" if before else str(shim)}


def _summarise(job_id: str, socket_path: Path, as_json: bool) -> None:
    from greend.cli import summary
    from greend.cli.jobs import job_json
    from greend.cli.output import console, print_json
    from greend.store import jobs

    with options.history(None, socket_path) as store, store.read() as connection:
        found = jobs.job(connection, job_id)
        decisions = jobs.decisions(connection, found.job.id)
    if as_json:
        print_json({"job": job_json(found)})
    else:
        summary.print_summary(console(stderr=True), found, decisions)
