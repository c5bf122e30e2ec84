"""A hold: somebody keeps a job at a level for a while, and says why."""

from __future__ import annotations

from dataclasses import dataclass

from greend.clock import Instant
from greend.governor.conditions import Conditions
from greend.governor.constraint import Memory
from greend.types import Bound, Rank


@dataclass(frozen=True, slots=True)
class Hold:
    """Keeps a job at `level` or below."""

    name: str
    """Whose hold it is."""
    level: int
    reason: str
    until: Instant | None = None
    """None: for as long as whoever grants holds has it on its list."""
    keep: bool = False
    """It keeps the job at the level also against budgets and other users, which only the settings can grant;
    never against a cap or what is for safety."""

    @property
    def by(self) -> str:
        """What it is called in decisions."""
        return f"hold by {self.name}"

    def bound(self, conditions: Conditions, memory: Memory, now: Instant) -> tuple[Bound | None, Memory]:
        """Return the level asked for; None once its time is over. Whoever asked does not want to wait."""
        if self.until is not None and now >= self.until:
            return None, None
        level = min(max(self.level, 0), conditions.profile.top)
        words = f"held at level {level} by {self.name}: {self.reason}"
        if not self.keep:
            return Bound(self.by, Rank.USER, level, words, urgent=True), None
        return Bound(self.by, Rank.USER, level, words, urgent=True, floor=level), None
