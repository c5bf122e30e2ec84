"""What the training thread and the link say to each other: attributes, each one object at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

from greend.types import Action

TOP = 1 << 30
"""A wanted level above any: the untouched model, however many levels there turn out to be."""


class Order(NamedTuple):
    """All that is asked of the training loop; one object, so that nobody sees half of a new one."""

    level: int = TOP
    pace: float = 1.0
    """Share of full speed, 0 < pace <= 1."""
    power_w: float | None = None
    """Average power to be held; None: none is."""
    burst_j: float | None = None
    """How many joules may be saved up for later; None: a second's worth."""
    step_j: float | None = None
    """Joules of a step, where who asks for a power knows; None: as measured."""
    action: Action = Action.RUN
    from_step: int = 0
    """It holds as soon as so many optimizer steps are done; until then the one before it does."""
    seq: int = 0
    """The directive that it comes from; 0: none."""


class Applied(NamedTuple):
    """What became of an order."""

    seq: int = 0
    """The newest directive that is in force in the loop."""
    refused: str = ""
    """Why it is not obeyed in full; empty: it is."""
    switch_s: float = 0.0
    """What the last change of level took."""


class Position(NamedTuple):
    """Where the training loop is; one object, so that another thread never sees half of it."""

    step: int = 0
    level: int = 0
    mono_ns: int = 0


class Signals:
    """No lock: assigning an attribute is atomic, and the training thread must never wait."""

    __slots__ = ("applied", "order", "position", "step_j")

    def __init__(self) -> None:
        self.order = Order()
        """Written by the link and by local requests; read at the first forward of a step, and in waits."""
        self.step_j: tuple[float | None, ...] = ()
        """Joules per step of each level, where the daemon has said so; written by the link."""
        self.position: Position | None = None
        """Written by the training thread at each step; read by the link."""
        self.applied = Applied()
        """Written by the training thread when an order has come into force; read by the link."""

    def ask(self, **changes: Any) -> None:
        """Ask for something else from the next step on, until the daemon has something new to say."""
        self.order = self.order._replace(from_step=0, **changes)
