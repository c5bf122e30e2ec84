"""A training job as it really is: what its levels cost, and what happens to them on the way (pure)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from greend.simulation.device import Device


def misjudged(costs: Sequence[float], error: float, dice: random.Random) -> tuple[float, ...]:
    """Return costs relative to the top as an agent might have estimated them, each off by a lognormal error.

    They still rise from level to level, since the agent's own ladder does.
    """
    estimates = [costs[-1]]
    for cost in reversed(costs[:-1]):
        estimates.append(min(cost * dice.lognormvariate(0, error), 0.95 * estimates[-1]))
    return tuple(estimate / costs[-1] for estimate in reversed(estimates))


@dataclass(frozen=True, slots=True)
class Contention:
    """A stretch of the job, in shares of its steps, in which a neighbour makes steps take longer."""

    first: float
    last: float
    slowdown: float = 1.5
    """How many times as long a step takes; the idle power of the time lost is the job's."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What a job is made of. Costs are of an undisturbed step; level 0 is the least, the last the top."""

    dynamic_j: tuple[float, ...]
    """Dynamic joules of a step by level."""
    steps: int
    quality: tuple[float, ...]
    """What a step at each level is worth, the top 1."""
    least_step_s: tuple[float, ...] = ()
    """The least time of a step by level, as the host feeds the device no faster; empty: none."""
    noise: float = 0.06
    """Standard deviation of a step's work, relative."""
    drift: float = 0.0
    """How much dearer the work is from `drift_at` (a share of the steps) on."""
    drift_at: float = 0.5
    contention: tuple[Contention, ...] = ()
    startup_j: float = 0.0
    startup_s: float = 0.0
    tail_j: float = 0.0
    tail_s: float = 0.0
    switch_j: float = 0.0
    switch_s: float = 0.0

    @classmethod
    def of(
        cls, device: Device, step_j: Sequence[float], steps: int, quality: Sequence[float], **more: object
    ) -> Workload:
        """Return a job whose undisturbed steps use so many joules in all, with the device saturated."""
        dynamic_j = tuple(device.dynamic_j(joules) for joules in step_j)
        return cls(dynamic_j, steps, tuple(quality), **more)  # type: ignore[arg-type]

    @property
    def top(self) -> int:
        """The level of the untouched model."""
        return len(self.dynamic_j) - 1

    def drifted(self, step: float) -> float:
        """Return the factor on the work of a step."""
        return 1 + self.drift if step >= self.drift_at * self.steps else 1.0

    def slowdown(self, step: float) -> float:
        """Return how many times as long a step takes."""
        share = step / self.steps if self.steps else 0.0
        return max((c.slowdown for c in self.contention if c.first <= share < c.last), default=1.0)

    def least_s(self, level: int) -> float:
        """Return the least time of a step in seconds."""
        return self.least_step_s[level] if self.least_step_s else 0.0

    def step_j(self, device: Device, level: int, step: float = 0.0, disturbed: bool = True) -> float:
        """Return what a step is expected to use on a device, in joules."""
        dynamic_j = self.dynamic_j[level] * self.drifted(step)
        seconds = device.seconds(dynamic_j, self.least_s(level))
        return device.idle_w * seconds * (self.slowdown(step) if disturbed else 1.0) + dynamic_j
