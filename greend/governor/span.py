"""The levels that a rule allows: not above one, not below another."""

from __future__ import annotations

from dataclasses import dataclass

from greend.clock import Instant
from greend.governor.conditions import Conditions
from greend.governor.constraint import Memory
from greend.types import Bound, Rank


@dataclass(frozen=True, slots=True)
class Span:
    """From `least` to `most`; budgets and users may not push the job below `least`, caps and safety may."""

    by: str
    least: int | None = None
    most: int | None = None

    def bound(self, conditions: Conditions, memory: Memory, now: Instant) -> tuple[Bound | None, Memory]:
        """Return the levels allowed, as far as this job's model has them."""
        top = conditions.profile.top
        level = top if self.most is None else min(self.most, top)
        floor = 0 if self.least is None else min(self.least, level)
        words = [f"level {level} at most"] if self.most is not None else []
        words += [f"level {floor} at least"] if self.least is not None else []
        return Bound(self.by, Rank.USER, level, ", ".join(words), floor=floor), None
