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

from greend.types import Limits

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
    limits: Limits = field(default_factory=Limits)
    """What it may use, given by hand. `budget_j` alone is how older clients say `limits.energy_j`."""


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
    seq: int = 0
    """The newest directive that is in force in the loop; 0: none yet."""
    refused: str = ""
    """Why that directive's level could not be taken; empty: it was."""
    switch_s: float = 0.0
    """What the last change of level took."""


@dataclass(frozen=True, slots=True)
class LimitsRequest:
    """What a running job may use from now on, in place of what it might before: given by hand."""

    limits: Limits


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """Keep a job at a level or below. Without `for_s` it is a stream, and the hold lives as long as that."""

    level: int
    reason: str
    for_s: float | None = None
    name: str = ""
    """Whose hold it is called in decisions; empty: the user's name."""


@dataclass(frozen=True, slots=True)
class HoldReply:
    """The hold as granted; on a stream it is the first event, `hold`."""

    hold: str


@dataclass(frozen=True, slots=True)
class HoldNow:
    """A hold that is in force."""

    hold: str
    job: str
    level: int
    reason: str
    name: str
    uid: int
    pid: int
    since_wall_ns: int
    until_wall_ns: int | None
    """None: for as long as the connection of process `pid` lasts."""


@dataclass(frozen=True, slots=True)
class PeriodRequest:
    """What all jobs of the machine together may use in each day or month; all None: no such budget."""

    period: str
    """`day` or `month`, by the machine's own calendar."""
    energy_j: float | None = None
    carbon_g: float | None = None
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class PeriodNow:
    """A budget of the machine over the period under way."""

    period: str
    energy_j: float | None
    carbon_g: float | None
    cost: float | None
    spent_j: float
    """What all jobs have used since the period began."""
    spent_g: float | None
    """None: no carbon intensity is set."""
    spent_cost: float | None
    """None: no price is set."""
    start_wall_ns: int
    end_wall_ns: int


@dataclass(frozen=True, slots=True)
class RuleRequest:
    """A named policy rule, with the keys that `[policies.NAME]` has in the settings; None: it is removed."""

    name: str
    rule: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RuleNow:
    """A named policy rule that the daemon has."""

    name: str
    rule: dict[str, Any]
    origin: str
    """`settings` (the file) or `command` (set while the daemon ran, and kept in its database)."""


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
    """When the daemon falls silent for longer than `ttl_s`: `top` gives the level back, `hold` keeps it, and
    `safe` goes to `safe_level`."""
    safe_level: int = 0
    pace: float = 1.0
    """Share of full speed, 0 < pace <= 1: below 1 the training loop waits between its steps."""
    power_w: float | None = None
    """Average power that the loop is to hold by its own token bucket in joules; None: no such limit."""
    burst_j: float | None = None
    """How much that bucket holds; None: a second's worth."""
    action: str = "run"
    """`run`, `pause` (wait before the next step) or `stop` (save a checkpoint and end, if the loop can)."""
    apply_at_step: int = 0
    """The directive holds from this step on; 0: from the next one."""
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
    try:
        return _made(kind, data)
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: {error}") from error


def _made(kind: type[Message], data: dict[str, Any]) -> Message:
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    fields = {name: value for name, value in data.items() if name in known}
    if isinstance(limits := fields.get("limits"), dict):
        fields["limits"] = _made(Limits, limits)
    return kind(**fields)


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
