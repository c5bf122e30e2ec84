"""Between two steps a training loop waits: for its share of the time, for joules, or until it may go on.

A thin shell around the token bucket, which waits in the training thread, in small slices.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from greend.bucket import Bucket
from greend.clock import NS, mono_ns
from greend.types import Action
from greend_agent.lease import LEAST_PACE
from greend_agent.signals import Order, Signals

LONGEST_WAIT_S = 5.0
"""For a share of the time no step is held up for longer: an evaluation between two steps is work too, and is
not to be followed by a rest of minutes."""
LONGEST_DEBT_S = 600.0
"""A step that needs more than so many seconds at the power that is held is forgiven the rest."""
SLICE_S = 0.05
"""How soon a wait notices that something else is asked."""
_NOTHING_S = 1e-5
"""No clock and no sleep is finer; what is left is owed by the next step."""
BURST_S = 1.0
"""What was not used in so much time may be made up for at once."""


class Limit(NamedTuple):
    """What a loop is held to: a share of the time, or a power."""

    rate: float
    """Seconds of work per second, or watts."""
    burst: float
    """Seconds of work, or joules."""
    in_joules: bool = False

    def bucket(self, before: Bucket | None, now_s: float) -> Bucket:
        """Return what holds it from now on. What is owed in joules is still owed at another power."""
        debt = self.rate * (LONGEST_DEBT_S if self.in_joules else LONGEST_WAIT_S)
        if before is None or not self.in_joules:
            return Bucket(self.rate, self.burst, debt, now_s)
        before.change(self.rate, self.burst, debt, now_s)
        return before


class Pace:
    """Keeps the order that is in force, and makes the loop wait as it says.

    Work is all the time that is not spent waiting here: a device may still be busy with a step when the
    loop is already loading the next batch.
    """

    def __init__(
        self,
        signals: Signals,
        clock: Callable[[], int] = mono_ns,
        sleep: Callable[[float], None] = time.sleep,
        patience_s: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self._signals, self._clock, self._sleep = signals, clock, sleep
        self._patience_s = patience_s
        """How long the loop may stand before one step: other processes may be waiting for it."""
        self.order = signals.order
        """What the step under way was made by."""
        self.on_stand: Callable[[], None] = lambda: None
        """Called when the loop is about to stand still: no step will say for it what is in force."""
        self._free: Order | None = None
        """The order in force, where there is nothing to wait for: the one question at an idle step."""
        self._stopped = False
        self._buckets: dict[Limit, Bucket] = {}
        self._since_ns = 0
        self.waited_ns = 0
        """All the time that was spent waiting."""

    def stop(self) -> None:
        """Wait no longer, also where a wait is under way in another thread."""
        self._stopped = True

    def due(self, steps: int) -> Order:
        """Return what the step that begins when so many are done will be made by."""
        order = self._signals.order
        # What is to hold from a later step on would never come where no step is made.
        return order if steps >= order.from_step or self.order.action is Action.PAUSE else self.order

    def before_step(self, level: int, steps: int = 0, costs: Sequence[float] = ()) -> Order:
        """Wait until the next step may begin, and return what it is made by. At full pace, at once.

        `level` is that of the step before, `steps` how many there were, and `costs` those of the levels,
        relative to each other.
        """
        order = self._signals.order
        if order is self._free:
            return order
        self.order, self._free = self.due(steps), None
        if not self._buckets and not self._waits(self.order):
            self._free = order if order is self.order else None
            return self.order
        begin_ns = now_ns = self._clock()
        worked_s = (begin_ns - self._since_ns) / NS if self._buckets else 0.0
        for limit, bucket in self._buckets.items():
            used = self._step_j(level, costs) if limit.in_joules else worked_s
            bucket.spent(used, begin_ns / NS)
        self._follow(now_ns)
        while (left_s := self._left_s(worked_s, begin_ns, now_ns)) > _NOTHING_S:
            self._sleep(min(left_s, SLICE_S))
            now_ns = self._clock()
            if self._signals.order is not self.order:
                self.order = self.due(steps)
            self._follow(now_ns)
        self._since_ns = now_ns
        self.waited_ns += now_ns - begin_ns
        return self.order

    def _waits(self, order: Order) -> bool:
        return order.pace < 1.0 or order.power_w is not None or order.action is Action.PAUSE

    def _follow(self, now_ns: int) -> None:
        """Hold what is wanted; what is owed to what is not wanted any more is forgotten."""
        wanted = self._wanted()
        if wanted == tuple(self._buckets):
            return
        before = {limit.in_joules: bucket for limit, bucket in self._buckets.items()}
        self._buckets = {limit: limit.bucket(before.get(limit.in_joules), now_ns / NS) for limit in wanted}

    def _wanted(self) -> tuple[Limit, ...]:
        order = self.order
        if self._stopped:
            return ()
        wanted = []
        if order.pace < 1.0:
            wanted.append(Limit(order.pace, order.pace * BURST_S))
        if order.power_w is not None:
            burst_j = order.power_w * BURST_S if order.burst_j is None else order.burst_j
            wanted.append(Limit(order.power_w, burst_j, in_joules=True))
        return tuple(wanted)

    def _left_s(self, worked_s: float, begin_ns: int, now_ns: int) -> float:
        """How long the step that has been held up since `begin_ns` is to wait from now on."""
        stood_s = (now_ns - begin_ns) / NS
        if self.order.action is Action.PAUSE and not self._stopped:
            self.on_stand()
            return self._patience_s() - stood_s
        # A power that is out of reach makes a job slow, and does not stop it.
        longest_s = {False: LONGEST_WAIT_S, True: min(worked_s / LEAST_PACE, self._patience_s())}
        waits = (
            min(bucket.wait_s(now_ns / NS), longest_s[limit.in_joules] - stood_s)
            for limit, bucket in self._buckets.items()
        )
        return max(waits, default=0.0)

    def _step_j(self, level: int, costs: Sequence[float]) -> float:
        known = self.order.step_j
        return known if known is not None else joules_of(level, self._signals.step_j, costs) or 0.0


def joules_of(level: int, known_j: Sequence[float | None], costs: Sequence[float]) -> float | None:
    """Return the joules of a step at a level: as measured, or those of the nearest level, by their costs."""
    measured = {k: j for k, j in enumerate(known_j) if j is not None}
    if level in measured:
        return measured[level]
    comparable = [k for k in measured if k < len(costs)]
    if not comparable or level >= len(costs):
        return None
    nearest = min(comparable, key=lambda k: abs(k - level))
    return measured[nearest] * costs[level] / costs[nearest]
