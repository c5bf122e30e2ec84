"""What a step costs at each resource level, learned while the job runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

KNOWN_STEPS = 20.0
"""A level is known by its own measurements from so many steps on."""
MEMORY = 0.97
"""Weight that an observation keeps at each later one of its level: about 30 s of memory at 1 Hz."""
MOST_DRIFT = 2.0
"""One observation moves the other levels by no more than this factor: beyond it, it is no drift."""
DOUBT = 0.004
"""Relative doubt about a level's cost that grows with each observation of another level..."""
MOST_DOUBT = 0.08
"""...up to this."""


@dataclass(frozen=True, slots=True)
class LevelProfile:
    """Joules and steps seen at each level, older ones weighing less.

    `costs` are the agent's estimates relative to the top (from FLOPs), used where nothing was measured.
    """

    costs: tuple[float, ...]
    energy_j: tuple[float, ...]
    steps: tuple[float, ...]
    age: tuple[int, ...]
    """Observations of other levels since each level was last seen."""

    @classmethod
    def prior(cls, costs: Sequence[float]) -> LevelProfile:
        """Return a profile that has seen nothing yet."""
        zeros = (0.0,) * len(costs)
        return cls(tuple(costs), zeros, zeros, (0,) * len(costs))

    @property
    def top(self) -> int:
        """The level of the untouched model."""
        return len(self.costs) - 1

    def observe(self, level: int, energy_j: float, steps: float) -> LevelProfile:
        """Return the profile after `steps` steps at `level` used `energy_j` joules."""
        if steps <= 0 or energy_j < 0 or not 0 <= level <= self.top:
            return self
        seen_j = _with(self.energy_j, level, self.energy_j[level] * MEMORY + energy_j)
        seen = _with(self.steps, level, self.steps[level] * MEMORY + steps)
        age = tuple(0 if k == level else older + 1 for k, older in enumerate(self.age))
        after = replace(self, energy_j=seen_j, steps=seen, age=age)
        if not self.known(level) or self._mean(level) <= 0:
            return after
        # What makes this level dearer than it was (a hotter chip, a neighbour, longer batches) makes all
        # of them dearer: the others move by the same factor, so that the top is known while it is not run.
        moved = min(max(after._mean(level) / self._mean(level), 1 / MOST_DRIFT), MOST_DRIFT)
        scaled = tuple(j if k == level else j * moved for k, j in enumerate(after.energy_j))
        return replace(after, energy_j=scaled)

    def known(self, level: int) -> bool:
        """Whether the level has been measured itself."""
        return self.steps[level] >= KNOWN_STEPS

    def step_j(self) -> tuple[float, ...] | None:
        """Joules per step of every level, never falling from a level to the next; None: nothing seen.

        A level that was not measured lies on the line through its two nearest measured neighbours over
        the estimated costs: a step is a fixed part (data, logging, optimizer overhead) plus one that
        grows with the model, and one measured level alone cannot tell them apart (then: in proportion).
        """
        measured = [k for k in range(len(self.costs)) if self.known(k)]
        if not measured:
            return None
        estimate: list[float] = []
        for level in range(len(self.costs)):
            step_j = self._mean(level) if level in measured else self._on_line(level, measured)
            estimate.append(max(step_j, estimate[-1] if estimate else 0.0))
        return tuple(estimate)

    def hopeful_step_j(self) -> tuple[float, ...] | None:
        """Joules per step as low as they may well be: an estimate that is old is worth another look.

        A level that turns out dearer is left again; one that is wrongly thought too dear to try would
        leave joules unspent at the end.
        """
        step_j = self.step_j()
        if step_j is None:
            return None
        doubts = [
            min(DOUBT * age, MOST_DOUBT) if self.known(k) else MOST_DOUBT for k, age in enumerate(self.age)
        ]
        return tuple(value * (1 - doubt) for value, doubt in zip(step_j, doubts, strict=True))

    def _mean(self, level: int) -> float:
        return self.energy_j[level] / self.steps[level]

    def _on_line(self, level: int, measured: list[int]) -> float:
        nearest = sorted(measured, key=lambda k: abs(self.costs[k] - self.costs[level]))[:2]
        if len(nearest) == 2 and self.costs[nearest[0]] != self.costs[nearest[1]]:
            a, b = nearest
            slope = (self._mean(a) - self._mean(b)) / (self.costs[a] - self.costs[b])
            return max(self._mean(a) + max(slope, 0.0) * (self.costs[level] - self.costs[a]), 0.0)
        return self._mean(nearest[0]) * self.costs[level] / self.costs[nearest[0]]


def _with(values: tuple[float, ...], index: int, value: float) -> tuple[float, ...]:
    return (*values[:index], value, *values[index + 1 :])
