"""`greend attach PID`: a job that already runs."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from greend import wire
from greend.cli import options
from greend.cli.limits import asked, changed
from greend.client import Client
from greend.process import denied, look, refusal
from greend.types import Limits

_SCRIPT = """\
import os, sys
try:
    if "torch.optim" not in sys.modules:
        raise RuntimeError("no PyTorch is loaded in this process")
    from greend_agent import remote
    remote.arm({environment!r})
except Exception as error:
    sys.stderr.write(f"greend: not attached: {{type(error).__name__}}: {{error}}\\n")
finally:
    try:
        os.unlink({path!r})
    except OSError:
        pass
"""
"""What the process runs at its next safe point."""


@click.command()
@asked("--budget")
@click.option("--steps", type=click.IntRange(min=1), help="Optimizer steps that are still to come.")
@options.choice
@click.option("--name", help="What to call the job; otherwise its script.")
@options.socket
@options.as_json
@click.argument("pid", type=click.IntRange(min=1))
def command(
    named: dict[str, Any],
    steps: int | None,
    levels: str,
    knobs: str | None,
    name: str | None,
    socket_path: Path | None,
    as_json: bool,
    pid: int,
) -> int:
    """Give the training loop of a running process resource levels (Python 3.14 and later).

    The process looks for its model at its next optimizer step. Exit code 5: it cannot be attached while it
    runs, with the reason; 4: this user may not.
    """
    limits = changed(Limits(), named)
    process = look(pid)
    error = refusal(process, sys.version_info[:2])
    if error is not None:
        raise error
    client = Client(socket_path)
    request = wire.JobRequest(pid, list(process.words), name, steps=steps, limits=limits)
    job = wire.JobReply(**client.post("/jobs", request)).job
    environment = {wire.ENV_JOB: job, wire.ENV_SOCKET: str(client.path), wire.ENV_LEVELS: levels}
    if knobs is not None:
        environment[wire.ENV_KNOBS] = knobs
    _ask(pid, environment)
    if as_json:
        from greend.cli.output import print_json

        print_json({"job": job, "pid": pid})
    else:
        print(f"process {pid} is job {job}; it is attached at its next optimizer step: `greend why {job}`")
    return 0


def _ask(pid: int, environment: dict[str, str]) -> None:
    handle, path = tempfile.mkstemp(prefix="greend-attach-", suffix=".py")
    with os.fdopen(handle, "w") as script:
        script.write(_SCRIPT.format(environment=environment, path=path))
    Path(path).chmod(0o644)  # root may attach to a user's process, which has to read it
    remote_exec: Any = getattr(sys, "remote_exec")  # noqa: B009 (mypy checks for 3.11)
    try:
        remote_exec(pid, path)
    except PermissionError as error:
        Path(path).unlink()
        raise denied(pid) from error
