"""A device's energy counter as software sees it: late, in quanta, wrapping, at times standing still."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from greend.counters import increase


@dataclass(frozen=True, slots=True)
class Meter:
    """How a counter of joules shows what was used."""

    lag_s: float = 0.0
    """What it shows is so old."""
    period_s: float = 0.0
    """It moves once in so many seconds: 1 ms for RAPL, 20 to 100 ms for NVML."""
    quantum_j: float = 0.0
    """It moves by whole multiples of this: 61 µJ for RAPL, 1 mJ for NVML."""
    wraps_at_j: float | None = None
    """It restarts at 0 after this: 262 144 J for a RAPL package."""
    frozen: tuple[tuple[float, float], ...] = ()
    """Seconds [from, to) in which it stands still."""


class Counter:
    """One counter on a meter: told what was used, and read as often as wanted, both in order of time."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._known: deque[tuple[float, float]] = deque([(0.0, 0.0)])
        self._last = 0.0
        self._last_s = 0.0

    def note(self, now_s: float, energy_j: float) -> None:
        """Note how much has been used up to now."""
        self._known.append((now_s, energy_j))

    def read_j(self, now_s: float) -> float:
        """Return what the counter shows now."""
        meter = self._meter
        for begin_s, end_s in meter.frozen:
            if begin_s <= now_s < end_s:
                now_s = begin_s
        shown_s = now_s - meter.lag_s
        if meter.period_s > 0:
            shown_s = meter.period_s * (shown_s // meter.period_s)
        value = self._at(max(shown_s, 0.0))
        if meter.quantum_j > 0:
            value = meter.quantum_j * (value // meter.quantum_j)
        return value if meter.wraps_at_j is None else value % meter.wraps_at_j

    def increase_j(self, now_s: float) -> float:
        """Return what it grew by since it was last asked, by the rules that the daemon reads counters by."""
        value = self.read_j(now_s)
        grown, _ = increase(self._last, value, self._meter.wraps_at_j, None, now_s - self._last_s)
        self._last, self._last_s = value, now_s
        return grown or 0.0

    def _at(self, at_s: float) -> float:
        while len(self._known) > 1 and self._known[1][0] <= at_s:
            self._known.popleft()
        before_s, before_j = self._known[0]
        if len(self._known) == 1 or at_s <= before_s:
            return before_j
        after_s, after_j = self._known[1]
        return before_j + (after_j - before_j) * (at_s - before_s) / (after_s - before_s)
