"""What the daemon asks of the actuator, and the answers: one JSON object a line."""

from __future__ import annotations

import msgspec


class Request(msgspec.Struct, frozen=True, tag_field="ask"):
    """Base of all questions. Any of them renews the leases of its connection."""

    seq: int
    """The answer carries the same."""


class ListControls(Request, frozen=True, tag="controls"):
    """Which limits there are, and who holds them."""


class SetLimit(Request, frozen=True, tag="set"):
    """Take the lease of a control, or set it anew under the lease that one has."""

    control: str
    value: float
    """In the control's unit, clamped to its range."""
    window_s: float | None = None
    ttl_s: float = 30.0
    """The lease ends when nothing is heard for so long."""
    reason: str = ""


class Renew(Request, frozen=True, tag="renew"):
    """Go on with all leases of this connection."""


class Release(Request, frozen=True, tag="release"):
    """Put a control back as it was."""

    lease: int


class ControlInfo(msgspec.Struct, frozen=True):
    """One control as it stands."""

    name: str
    kind: str
    device: str
    unit: str
    value: float | None = None
    """None: no limit, or it cannot be read."""
    least: float | None = None
    most: float | None = None
    window_s: float | None = None
    holder: str = ""
    problem: str = ""


class Held(msgspec.Struct, frozen=True):
    """A lease as it stands."""

    lease: int
    control: str
    asked: float
    value: float | None
    """What the device holds itself to: clamped, and rounded by it."""
    lost: str = ""
    """Why the lease has ended before it was released; empty: it is in force."""
    problem: str = ""
    """What the device makes of it: `cap of 100 W not honoured by device, floor is 121 W`."""


class Answer(msgspec.Struct, frozen=True):
    """To one request: what was asked for, or the error that it met."""

    seq: int
    error: str = ""
    kind: str = ""
    """The name of the error in greend.errors."""
    controls: list[ControlInfo] = []
    problems: dict[str, str] = {}
    """Why there are no controls of a kind."""
    held: list[Held] = []
    """All leases of the connection, and those that have ended since it last asked."""
    lease: int = 0
    """The one that was asked for."""
    said: str = ""


Ask = ListControls | SetLimit | Renew | Release

LINE_MAX = 1 << 16
"""No message is longer; whoever sends more without an end of line is cut off."""


def encode(message: Request | Answer) -> bytes:
    """Return a message as one line."""
    return msgspec.json.encode(message) + b"\n"
