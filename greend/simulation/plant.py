"""A job on a device in simulated time, with an agent in its loop that obeys directives (seeded, pure)."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from greend.bucket import Bucket
from greend.simulation.device import Device
from greend.simulation.meter import Counter, Meter
from greend.simulation.workload import Workload
from greend.types import Action
from greend.wire import Directive

SLICE_S = 0.05
"""How soon a loop that waits notices that it need not any more."""
NOTHING_S = 1e-6
"""A shorter wait is none: what is left is owed by the next step."""


@dataclass(slots=True)
class Activity:
    """What the job does until it is through with it, at one power."""

    left_s: float
    power_w: float
    is_step: bool = False


class Plant:
    """One job, from its start to its end. `advance` moves time; `obey` is what its agent is told.

    Within a step the power is constant. Directives are taken between steps: first the level, which costs
    a switch, then a pause, then the token bucket. The same arguments and seed give the same job.
    """

    def __init__(
        self,
        workload: Workload,
        device: Device,
        meter: Meter | None = None,
        seed: int = 0,
        within_j: float = math.inf,
    ) -> None:
        self.workload, self.device = workload, device
        self.within_j = within_j
        """Steps and their worth are counted apart as long as no more than this has been used."""
        self._dice = random.Random(seed)
        self.counter = Counter(meter or Meter())
        self.now_s = 0.0
        self.energy_j = 0.0
        self.steps = 0
        self.step_at_s = 0.0
        """When the last step ended."""
        self.level = workload.top
        self.step_level = workload.top
        """At which level it was made: a new level is reported with the first step at it."""
        self.levels_since: set[int] = set()
        """Levels at which steps were made since this was last cleared."""
        self.quality = 0.0
        """The sum over all steps of what each was worth."""
        self.steps_within = 0
        self.quality_within = 0.0
        self.steps_at = [0] * (workload.top + 1)
        self.switches = 0
        self.limit_w = math.inf
        """The device's power limit."""
        self.temperature_c = device.heat.ambient_c if device.heat else math.nan
        self.stopped = False
        """It was told to save a checkpoint and end, and did."""
        self.done = False
        self._told: list[tuple[float, Directive]] = []
        self._directive: Directive | None = None
        self._bucket: Bucket | None = None
        self._owed_s = 0.0
        self._step_s = 0.0
        self._ending = False
        self.trace: list[tuple[float, float]] = [(0.0, 0.0)]
        """Seconds and joules so far wherever the power changed: in between, they lie on a line."""
        self._now = Activity(workload.startup_s, _power_w(workload.startup_j, workload.startup_s))
        if not workload.startup_s:
            self.energy_j = workload.startup_j

    def obey(self, directive: Directive, at_s: float) -> None:
        """Have the agent hear a directive at `at_s`, which lies ahead or is now."""
        self._told.append((at_s, directive))

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass, or as many as there are until the job has ended."""
        end_s = self.now_s + seconds
        while not self.done:
            length_s = min(self._now.left_s, end_s - self.now_s)
            self._pass(length_s)
            if self._now.left_s > 0:
                break
            self._next()
        self.counter.note(self.now_s, self.energy_j)

    def _pass(self, seconds: float) -> None:
        now = self._now
        if self.device.heat is not None and seconds > 0:
            self.temperature_c = self.device.heat.after(self.temperature_c, now.power_w, seconds)
        self.now_s += seconds
        self.energy_j += now.power_w * seconds
        now.left_s = now.left_s - seconds if seconds < now.left_s else 0.0

    def _next(self) -> None:
        """Go on to what the job does next."""
        self.trace.append((self.now_s, self.energy_j))
        if self._ending:
            self.done = True
            return
        if self._now.is_step:
            self._made()
        self._hear()
        directive = self._directive
        if self.steps >= self.workload.steps or (directive is not None and directive.action == Action.STOP):
            self.stopped = self.steps < self.workload.steps
            self._ending = True
            self._begin(self.workload.tail_j, self.workload.tail_s)
        elif directive is None:
            self._step()
        elif self._to(directive) != self.level:
            self.level = self._to(directive)
            self.switches += 1
            self._begin(self.workload.switch_j, self.workload.switch_s)
        elif directive.action == Action.PAUSE:
            self._now = Activity(SLICE_S, self.device.idle_w)
        elif (wait_s := self._wait_s()) > 0:
            self._now = Activity(wait_s, self.device.idle_w)
        else:
            self._step()

    def _wait_s(self) -> float:
        """Return how long the next step has to wait, or a slice of it."""
        if self._owed_s > 0:
            wait_s = min(self._owed_s, SLICE_S)
            self._owed_s -= wait_s
            return wait_s
        if self._bucket is None:
            return 0.0
        wait_s = self._bucket.wait_s(self.now_s)
        return min(wait_s, SLICE_S) if wait_s > NOTHING_S else 0.0

    def _begin(self, energy_j: float, seconds: float) -> None:
        if not seconds:
            self.energy_j += energy_j
        self._now = Activity(seconds, _power_w(energy_j, seconds))

    def _step(self) -> None:
        work, device = self.workload, self.device
        dynamic_j = work.dynamic_j[self.level] * work.drifted(self.steps)
        dynamic_j *= max(1 + self._dice.gauss(0, work.noise), 0.1)
        limit_w = self.limit_w
        if device.heat is not None and self.temperature_c > device.heat.throttle_c:
            limit_w = min(limit_w, device.heat.throttled_w)
        seconds = device.seconds(dynamic_j, work.least_s(self.level), limit_w) * work.slowdown(self.steps)
        self._step_s = seconds
        self._now = Activity(seconds, device.idle_w + dynamic_j / seconds, is_step=True)

    def _made(self) -> None:
        self.steps += 1
        self.step_at_s, self.step_level = self.now_s, self.level
        self.levels_since.add(self.level)
        self.steps_at[self.level] += 1
        worth = self.workload.quality[self.level]
        self.quality += worth
        if self.energy_j <= self.within_j:
            self.steps_within += 1
            self.quality_within += worth
        directive = self._directive
        if directive is None:
            return
        if directive.pace < 1.0:
            self._owed_s += self._step_s * (1 / directive.pace - 1)
        if self._bucket is not None:
            known = directive.step_j
            self._bucket.spent((known[self.level] if self.level < len(known) else None) or 0.0, self.now_s)

    def _hear(self) -> None:
        due = [directive for at_s, directive in self._told if at_s <= self.now_s]
        if not due:
            return
        self._told = [(at_s, directive) for at_s, directive in self._told if at_s > self.now_s]
        directive = max(due, key=lambda d: d.seq)
        if self._directive is not None and directive.seq <= self._directive.seq:
            return
        self._directive = directive
        if directive.power_w is None:
            self._bucket = None
            return
        burst_j = directive.burst_j if directive.burst_j is not None else directive.power_w
        debt_j = directive.power_w * 60.0
        if self._bucket is None:
            self._bucket = Bucket(directive.power_w, burst_j, debt_j, self.now_s)
        else:
            self._bucket.change(directive.power_w, burst_j, debt_j, self.now_s)

    def _to(self, directive: Directive) -> int:
        return min(max(directive.level, 0), self.workload.top)


def _power_w(energy_j: float, seconds: float) -> float:
    return energy_j / seconds if seconds > 0 else 0.0
