"""What every constraint is: it looks at the conditions and says how high the level and the pace may be."""

from __future__ import annotations

from typing import Any, Protocol

from greend.clock import Instant
from greend.governor.conditions import Conditions
from greend.types import Bound

Memory = Any
"""What a constraint remembers from one turn to the next: a frozen value of its own, or None at first."""


class Constraint(Protocol):
    """A budget, a cap, a deadline, a pressure or a hold. Pure: the same arguments, the same answer."""

    @property
    def by(self) -> str:
        """What it is called in decisions; unique within a policy."""
        ...

    def bound(self, conditions: Conditions, memory: Memory, now: Instant) -> tuple[Bound | None, Memory]:
        """Return its bound (None: it has nothing to say) and what it will want to remember."""
        ...
