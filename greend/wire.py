"""The messages between agent, command and daemon: plain dataclasses as JSON over a Unix socket.

Standard library only, since the agent carries this file into the user's process. The daemon
validates what it receives; both sides ignore fields that they do not know, so that an agent of
yesterday talks to a daemon of today.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

VERSION = 1
PREFIX = f"/v{VERSION}"

ENV_SOCKET = "GREEND_SOCKET"
ENV_JOB = "GREEND_JOB_ID"
ENV_LEVELS = "GREEND_LEVELS"
ENV_KNOBS = "GREEND_KNOBS"
ENV_DISABLED = "GREEND_DISABLED"
ENV_REQUIRED = "GREEND_REQUIRED"

SYSTEM_SOCKET = Path("/run/greend/greend.sock")

Message = TypeVar("Message")


@dataclass(frozen=True, slots=True)
class JobRequest:
    """Register a job: a process tree that may have a budget."""

    pid: int
    command: list[str]
    name: str | None = None
    budget_j: float | None = None
    steps: int | None = None
    """How many optimizer steps the job will make, where the user knows."""


@dataclass(frozen=True, slots=True)
class JobReply:
    """The job as registered."""

    job: str


@dataclass(frozen=True, slots=True)
class AttachRequest:
    """An agent says what its model can do. Costs are per step, relative to the top level."""

    pid: int
    costs: list[float]
    """Estimated cost of each level, least first; the last is 1.0, the untouched model."""
    steps: int | None = None
    report: list[str] = field(default_factory=list)
    """What was found, proven and rejected in the model, a line each."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the training loop is. Sent a few times a second, and once at the end."""

    step: int
    """Optimizer steps done so far."""
    level: int
    mono_ns: int
    """CLOCK_BOOTTIME at which `step` was reached."""


@dataclass(frozen=True, slots=True)
class EndRequest:
    """The job's process has ended."""

    exit_code: int
    cpu_s: float | None = None
    """CPU seconds of the whole tree by the kernel's last account (wait4), where the caller has it."""


@dataclass(frozen=True, slots=True)
class Directive:
    """What the daemon wants of the agent, valid for `ttl_s` after it (or any later ping) was heard."""

    seq: int
    level: int
    reason: str
    ttl_s: float
    on_loss: str = "top"
    """When the daemon falls silent for longer than `ttl_s`: `top` gives the level back, `hold` keeps it."""
    pace: float = 1.0
    """Share of full speed, 0 < pace <= 1: below 1 the training loop waits between its steps."""
    step_j: list[float | None] = field(default_factory=list)
    """Joules per step of each level, as far as the daemon has measured them."""


def encode(message: object) -> bytes:
    """Return a message as one line of JSON."""
    return json.dumps(dataclasses.asdict(message), separators=(",", ":")).encode()  # type: ignore[call-overload]


def decode(raw: bytes | str, kind: type[Message]) -> Message:
    """Return a message of the given kind, ignoring fields that this version does not know.

    Raises ValueError when it is not JSON, not an object, or lacks a field.
    """
    data: Any = json.loads(raw)
    if not isinstance(data, dict):
        raise ValueError(f"a JSON object was expected, not {type(data).__name__}")
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    try:
        return kind(**{k: v for k, v in data.items() if k in known})
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: {error}") from error


def user_socket() -> Path:
    """Where a daemon in user mode listens: the user's runtime folder, or state folder without one."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "greend" / "greend.sock"
    # Never a folder in /tmp: whoever creates it first could listen in our place.
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local/state") / "greend" / "greend.sock"


def default_socket() -> Path:
    """Where to find the daemon: $GREEND_SOCKET, else the user's own, else the system's."""
    named = os.environ.get(ENV_SOCKET)
    if named:
        return Path(named)
    own = user_socket()
    return SYSTEM_SOCKET if not own.exists() and SYSTEM_SOCKET.exists() else own
