"""The day and the month under way: when they end, and what all jobs together have used in them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo

from greend.clock import NS, Instant
from greend.types import Limits

PERIODS = ("day", "month")
J_PER_KWH = 3.6e6


def bounds_of(period: str, wall_ns: int, zone: tzinfo | None = None) -> tuple[int, int]:
    """Return the start and the end of the day or month that holds a moment, in nanoseconds since 1970.

    By the calendar of `zone`; None: the machine's own.
    """
    # An aware local time knows the offset of its own moment only: start and end are each looked up anew.
    now = datetime.fromtimestamp(wall_ns / NS, zone)
    start = now.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    if period == "month":
        start = start.replace(day=1)
        end = (start + timedelta(days=32)).replace(day=1)
    else:
        end = start + timedelta(days=1)
    return _wall_ns(start, zone), _wall_ns(end, zone)


def _wall_ns(local: datetime, zone: tzinfo | None) -> int:
    return int(local.replace(tzinfo=zone).timestamp()) * NS


@dataclass
class Spending:
    """What was used since a period began."""

    start_wall_ns: int
    end_wall_ns: int
    spent_j: float
    spent_g: float = 0.0


@dataclass
class PeriodBook:
    """The budgets of day and month, and their books. Asked of the store once, then kept by addition."""

    spent_since: Callable[[int], float]
    """Joules of all jobs on record since a moment (seconds since 1970)."""
    limits: dict[str, Limits] = field(default_factory=dict)
    zone: tzinfo | None = None
    _spending: dict[str, Spending] = field(default_factory=dict)
    _wall_ns: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def account(self, energy_j: float, g_per_kwh: float | None, now: Instant) -> None:
        """Add what all jobs used in one turn."""
        # As the stamps of the ledger: a clock that is stepped back does not begin yesterday again.
        self._wall_ns = max(self._wall_ns, now.wall_ns)
        with self._lock:
            for period in PERIODS:
                spending = self._of(period, g_per_kwh)
                spending.spent_j += energy_j
                spending.spent_g += energy_j / J_PER_KWH * (g_per_kwh or 0.0)

    def spent_in(self) -> Mapping[str, float]:
        """Return the joules that all jobs have used in each period under way."""
        with self._lock:
            return {period: spending.spent_j for period, spending in self._spending.items()}

    def spending(self, period: str, now: Instant) -> Spending:
        """Return the books of one period."""
        self._wall_ns = max(self._wall_ns, now.wall_ns)
        with self._lock:
            return self._of(period, None)

    def _of(self, period: str, g_per_kwh: float | None) -> Spending:
        known = self._spending.get(period)
        if known is None:
            start, end = bounds_of(period, self._wall_ns, self.zone)
            spent_j = self.spent_since(start // NS)
            # Joules of an earlier daemon's turns, at the intensity of now: theirs is not on record.
            known = Spending(start, end, spent_j, spent_j / J_PER_KWH * (g_per_kwh or 0.0))
        elif self._wall_ns >= known.end_wall_ns:
            known = Spending(*bounds_of(period, self._wall_ns, self.zone), 0.0)
        self._spending[period] = known
        return known
