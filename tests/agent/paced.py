"""A training loop on a clock that goes on when it works, and when it waits."""

from __future__ import annotations

import math
from collections.abc import Callable

from greend.clock import NS
from greend_agent.agent import Agent
from greend_agent.knobs.pace import Pace
from greend_agent.signals import Signals


class Loop:
    """A loop that works as long as it is told, and whose waits are noted."""

    def __init__(self, signals: Signals | None = None, patience_s: float = math.inf) -> None:
        self.signals = signals or Signals()
        self.now_ns = 7 * NS
        self.waits: list[float] = []
        self.steps = 0
        self._later: list[tuple[int, Callable[[], object]]] = []
        self.pace = Pace(self.signals, lambda: self.now_ns, self.sleep, lambda: patience_s)

    @classmethod
    def of(cls, agent: Agent) -> Loop:
        """Return the clock by which an agent's loop waits from now on."""
        loop, before = cls(agent._signals), agent._loop.orders.pace
        loop.pace.on_stand, loop.pace.order = before.on_stand, before.order
        agent._loop.orders.pace = loop.pace
        return loop

    def after_s(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something when so much has been waited from now on."""
        self._later.append((self.now_ns + round(seconds * NS), action))

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_ns += round(seconds * NS)
        due = [one for one in self._later if one[0] <= self.now_ns]
        for one in due:
            self._later.remove(one)
            one[1]()

    def run(self, steps: int, step_s: float, level: int = 0) -> float:
        """Make some steps, and return how long they and their waits took."""
        begin_ns = self.now_ns
        for _ in range(steps):
            self.pace.before_step(level, self.steps)
            self.now_ns += round(step_s * NS)
            self.steps += 1
        return (self.now_ns - begin_ns) / NS
