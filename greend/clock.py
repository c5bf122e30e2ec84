"""Time as an argument: nobody else in greend asks the operating system what time it is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

NS = 1_000_000_000


@dataclass(frozen=True, slots=True, order=True)
class Instant:
    """One moment on two clocks, in integer nanoseconds (floats lose microseconds after a day).

    `mono_ns` is CLOCK_BOOTTIME: it counts through a suspend, never steps, and is the same in every
    process of the machine; all arithmetic is done on it. `wall_ns` is UTC since 1970, to label rows.
    """

    mono_ns: int
    wall_ns: int

    def seconds_since(self, earlier: Instant) -> float:
        """Seconds of real time from `earlier` to this instant."""
        return (self.mono_ns - earlier.mono_ns) / NS

    def after(self, seconds: float) -> Instant:
        """Return the instant `seconds` later on both clocks."""
        step = round(seconds * NS)
        return Instant(self.mono_ns + step, self.wall_ns + step)


class Clock(Protocol):
    """Whoever can tell the time."""

    def now(self) -> Instant:
        """Return this instant on both clocks."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> Instant:
        """Return this instant on both clocks."""
        return Instant(mono_ns(), time.clock_gettime_ns(time.CLOCK_REALTIME))


class ManualClock:
    """A clock that moves when told to: for tests, simulations and replays."""

    def __init__(self, start: Instant | None = None) -> None:
        self._now = start or Instant(mono_ns=1_000 * NS, wall_ns=1_780_000_000 * NS)

    def now(self) -> Instant:
        """Return the instant at which the clock was left."""
        return self._now

    def advance(self, seconds: float) -> Instant:
        """Move both clocks forward and return the new instant."""
        self._now = self._now.after(seconds)
        return self._now

    def step_wall(self, seconds: float) -> None:
        """Step the wall clock alone, as an administrator or NTP does."""
        self._now = Instant(self._now.mono_ns, self._now.wall_ns + round(seconds * NS))


def mono_ns() -> int:
    """CLOCK_BOOTTIME in nanoseconds: the clock that processes of one machine share."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
