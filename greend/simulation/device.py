"""What a device does with work: its idle power, where it saturates, and how it takes a power limit (pure)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heat:
    """A thermal resistance and capacity; above `throttle_c` the device lets its power fall by itself."""

    ambient_c: float = 30.0
    kelvin_per_w: float = 0.15
    time_constant_s: float = 60.0
    throttle_c: float = 83.0
    throttled_w: float = 150.0

    def after(self, temperature_c: float, power_w: float, seconds: float) -> float:
        """Return the temperature in °C after so many seconds at a constant power: dT/dt = (T∞ - T)/τ."""
        settled_c = self.ambient_c + self.kelvin_per_w * power_w
        return settled_c + (temperature_c - settled_c) * math.exp(-seconds / self.time_constant_s)


@dataclass(frozen=True, slots=True)
class Device:
    """A device that draws `idle_w` always, and up to `saturated_w` while it works.

    The model: a step has D joules of dynamic work. Busy all the time it draws P = min(limit, saturated_w),
    so that a step takes D / (P - idle_w); a step that the host can feed no faster than every `s` seconds
    takes `s`, and the power falls instead. Its energy is idle_w · seconds + D. What a smaller model saves
    is then seconds on a saturated device and watts on an unsaturated one, where the idle joules are a floor.
    """

    idle_w: float = 60.0
    saturated_w: float = 300.0
    least_limit_w: float = 100.0
    """No limit below this is kept: a lower one acts as if it were this."""
    obeys: bool = True
    """False: a power limit is accepted and ignored."""
    heat: Heat | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.idle_w < min(self.saturated_w, self.least_limit_w):
            raise ValueError(
                f"a device of {self.idle_w:g} W idle, {self.saturated_w:g} W at most and a least limit of "
                f"{self.least_limit_w:g} W: 0 <= idle < both of the others was expected"
            )

    def seconds(self, dynamic_j: float, least_s: float = 0.0, limit_w: float = math.inf) -> float:
        """Return how long work of so many dynamic joules takes under a power limit in watts."""
        return max(least_s, dynamic_j / (self.power_w(limit_w) - self.idle_w))

    def power_w(self, limit_w: float = math.inf) -> float:
        """Return what it draws while it is busy all the time, in watts."""
        if not self.obeys:
            return self.saturated_w
        return min(max(limit_w, self.least_limit_w), self.saturated_w)

    def dynamic_j(self, step_j: float) -> float:
        """Return the dynamic part of a step that uses `step_j` joules in all on the saturated device."""
        return step_j * (1 - self.idle_w / self.saturated_w)
