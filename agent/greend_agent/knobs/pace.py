"""The pace of a training loop: it waits between steps, so that its average power stays where it should.

A token bucket (pure), and a thin shell around it that waits in the training thread, in small slices.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from greend.clock import NS, mono_ns
from greend_agent.signals import Signals

LONGEST_WAIT_S = 5.0
"""No step is held up for longer, whatever the pace: the other processes of a distributed job wait with it,
in operations that they give up after minutes."""
SLICE_S = 0.05
"""How soon a wait notices that the pace has changed."""
_NOTHING_S = 1e-5
"""No clock and no sleep is finer; what is left is owed by the next step."""
BURST_S = 1.0
"""What was not used in so much time may be made up for at once."""


class Bucket:
    """Fills at `rate` a second, is spent step by step, and says how long the next step has to wait.

    In joules, with `rate` in watts, it holds an average power; in seconds of work, with `rate` a share of
    the time, a duty. It holds `burst` at most; what a step takes beyond what is there is owed, up to `debt`.
    """

    def __init__(self, rate: float, burst: float, debt: float, now_s: float) -> None:
        self._rate, self._burst, self._debt = rate, burst, debt
        self._held, self._at_s = 0.0, now_s

    def spent(self, amount: float, now_s: float) -> None:
        """Note that a step that has just ended took so much."""
        self._fill(now_s)
        self._held = max(self._held - amount, -self._debt)

    def wait_s(self, now_s: float) -> float:
        """Return how many seconds from now nothing is owed any more."""
        self._fill(now_s)
        return max(0.0, -self._held / self._rate)

    def _fill(self, now_s: float) -> None:
        self._held = min(self._burst, self._held + self._rate * (now_s - self._at_s))
        self._at_s = now_s


class Limit(NamedTuple):
    """What a loop is held to: a share of the time, or a power."""

    rate: float
    """Seconds of work per second, or watts."""
    in_joules: bool = False


class Pace:
    """Holds a training loop to the share of its full speed that `signals.pace` wants, or to a power.

    Work is all the time that is not spent waiting here: a device may still be busy with a step when the
    loop is already loading the next batch.
    """

    def __init__(
        self,
        signals: Signals,
        clock: Callable[[], int] = mono_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._signals, self._clock, self._sleep = signals, clock, sleep
        self._power_w: float | None = None
        self._step_j: float | None = None
        self._stopped = False
        self._limit: Limit | None = None
        self._bucket: Bucket | None = None
        self._since_ns = 0
        self.waited_ns = 0
        """All the time that was spent waiting."""

    def hold(self, power_w: float | None, step_j: float | None = None) -> None:
        """Hold an average power in watts; None lets go.

        `step_j`: joules of a step. Without it what the daemon has measured is taken, and until it has
        measured something nothing is held.
        """
        self._step_j, self._power_w = step_j, power_w

    def stop(self) -> None:
        """Wait no longer, also where a wait is under way in another thread."""
        self._stopped = True

    def before_step(self, level: int) -> None:
        """Wait until the next step may begin; `level` is that of the step before. At full pace, at once."""
        if self._bucket is None and self._signals.pace >= 1.0 and self._power_w is None:
            return
        begin_ns = now_ns = self._clock()
        self._follow(now_ns)
        if self._bucket is not None:
            self._bucket.spent(self._used(level, now_ns), now_ns / NS)
        while self._bucket is not None:
            left_s = LONGEST_WAIT_S - (now_ns - begin_ns) / NS
            wait_s = min(self._bucket.wait_s(now_ns / NS), left_s, SLICE_S)
            if wait_s < _NOTHING_S:
                break
            self._sleep(wait_s)
            now_ns = self._clock()
            self._follow(now_ns)
        self._since_ns = now_ns
        self.waited_ns += now_ns - begin_ns

    def _follow(self, now_ns: int) -> None:
        """Take a new limit; what was saved or is owed at another one is forgotten."""
        limit = self._wanted()
        if limit == self._limit:
            return
        self._limit, self._bucket, self._since_ns = limit, None, now_ns
        if limit is not None:
            rate = limit.rate
            self._bucket = Bucket(rate, rate * BURST_S, rate * LONGEST_WAIT_S, now_ns / NS)

    def _wanted(self) -> Limit | None:
        if self._stopped:
            return None
        if self._signals.pace < 1.0:
            return Limit(self._signals.pace)
        return Limit(self._power_w, in_joules=True) if self._power_w is not None else None

    def _used(self, level: int, now_ns: int) -> float:
        """What the loop has used since it was last let go, in the unit of the limit."""
        worked_s = (now_ns - self._since_ns) / NS
        if self._limit is None or not self._limit.in_joules or not worked_s:
            return worked_s
        known = self._signals.step_j
        measured = known[level] if level < len(known) else None
        return (self._step_j if self._step_j is not None else measured) or 0.0
