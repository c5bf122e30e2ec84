"""Whether a device holds the cap that it was given: hardware has a floor, and says nothing when it cannot."""

from __future__ import annotations

from dataclasses import dataclass, replace

HONOURED = 1.03
"""An average above this share of the cap is no rounding."""
WINDOWS = 3
METER_WINDOW_S = 2.0
"""NVML renews its energy counter every 20 to 100 ms: three windows of this know the average to 1.7 %."""


@dataclass(frozen=True, slots=True)
class CapCheck:
    """Average power over stretches of three windows, the first window after a change left out."""

    cap_w: float
    window_s: float = METER_WINDOW_S
    settling_s: float = 0.0
    energy_j: float = 0.0
    seconds: float = 0.0
    floor_w: float | None = None
    """What the device drew under the cap, where that was more; None: the cap was held, or it is too soon."""

    @classmethod
    def of(cls, cap_w: float, window_s: float | None) -> CapCheck:
        """Return a check that begins; `window_s` is what the device averages over, where it says so."""
        return cls(cap_w, max(window_s or 0.0, METER_WINDOW_S))

    def observe(self, energy_j: float, seconds: float) -> CapCheck:
        """Return the check after the meter has grown by so much in so long."""
        if self.settling_s < self.window_s:
            return replace(self, settling_s=self.settling_s + seconds)
        energy_j, seconds = self.energy_j + energy_j, self.seconds + seconds
        if seconds < WINDOWS * self.window_s:
            return replace(self, energy_j=energy_j, seconds=seconds)
        power_w = energy_j / seconds
        floor_w = power_w if power_w > HONOURED * self.cap_w else None
        return replace(self, energy_j=0.0, seconds=0.0, floor_w=floor_w)

    def words(self) -> str:
        """Return what is wrong, or an empty text."""
        if self.floor_w is None:
            return ""
        return f"cap of {self.cap_w:.4g} W not honoured by device, floor is {self.floor_w:.4g} W"


def grown(before: tuple[float, float], after: tuple[float, float]) -> float:
    """Return by how much an energy counter grew, over one wrap at most; 0 when it was reset."""
    (then_j, _), (now_j, wraps_j) = before, after
    if now_j >= then_j:
        return now_j - then_j
    return now_j - then_j + wraps_j if wraps_j != float("inf") else 0.0
