"""What the training thread and the link say to each other: attributes, each written by one side."""

from __future__ import annotations

from typing import NamedTuple

TOP = 1 << 30
"""A wanted level above any: the untouched model, however many levels there turn out to be."""


class Position(NamedTuple):
    """Where the training loop is; one object, so that another thread never sees half of it."""

    step: int = 0
    level: int = 0
    mono_ns: int = 0


class Signals:
    """No lock: assigning an attribute is atomic, and the training thread must never wait."""

    __slots__ = ("pace", "position", "step_j", "want")

    def __init__(self) -> None:
        self.want = TOP
        """Written by the link and by local requests; read at the first forward of a step."""
        self.pace = 1.0
        """The share of full speed that is wanted, 0 < pace <= 1. Written and read as `want` is."""
        self.step_j: tuple[float | None, ...] = ()
        """Joules per step of each level, where the daemon has said so; written by the link."""
        self.position: Position | None = None
        """Written by the training thread at each step; read by the link."""
