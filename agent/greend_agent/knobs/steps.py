"""A dial with a few positions, of each of which it is known beforehand what it does and what it costs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import nn

from greend_agent.dial import Turned


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """The dial of something that has sizes rather than units: position 1 is the least of them."""

    knob: str
    name: str
    parts: Collection[nn.Module]
    """The modules whose work falls with it, each by the same share."""
    readers: tuple[nn.Module, ...]
    """The modules at whose outputs the proof compares."""
    positions: tuple[Turned, ...]
    """What is done at each position but the full one."""
    shares: tuple[float, ...]
    """How much of the work remains at each of them, rising, all below 1."""

    @property
    def full(self) -> int:
        """The position at which nothing is done."""
        return len(self.positions) + 1

    def turned(self, count: int) -> Turned:
        """Return what is to be done at a position, 1 <= count < full."""
        return self.positions[count - 1]

    def share(self, count: int, part: nn.Module) -> float:
        """Return how much of the work of one of its parts remains at a position."""
        return (*self.shares, 1.0)[count - 1]

    def count(self, fraction: float, levels: int) -> int:
        """Return the position whose work is nearest to a fraction of the whole; of two as near, the upper."""
        shares = (*self.shares, 1.0)
        return 1 + min(range(self.full), key=lambda which: (abs(shares[which] - fraction), -which))
