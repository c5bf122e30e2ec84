"""Which power limit makes a step cheapest: a lower one is not always less energy, so it is searched for.

Energy per step is convex in the limit: below the optimum the step takes so long that the idle power outweighs
what is saved. So the optimum lies where both neighbours cost more, and halving the wider side round the best
one finds it in about five probes of seven to nine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

STEP_W = 25.0
"""Limits are tried this far apart: the curve is flat at its bottom, where a finer step saves little."""
ALIKE = 0.005
"""Two limits whose energy differs by less than this share cost the same; of those the faster one is taken."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What was seen at one limit: sums since the search began."""

    energy_j: float = 0.0
    seconds: float = 0.0
    steps: float = 0.0

    def plus(self, energy_j: float, steps: float, seconds: float) -> Probe:
        """Return it with one more observation."""
        return Probe(self.energy_j + energy_j, self.seconds + seconds, self.steps + steps)


@dataclass(frozen=True, slots=True)
class LimitSearch:
    """The search for one job's best limit on one device at one level: energy per step is the level's too."""

    limits_w: tuple[float, ...]
    """What may be set, least first; the last one is the device's own, at which a job runs anyway."""
    seen: tuple[Probe, ...]
    max_slowdown: float | None = 0.10
    """A step may take this share longer than at the highest limit; None: as long as it wants."""
    probe_steps: float = 50.0
    """A limit is known after so many steps."""
    first: int | None = None
    """Where an earlier run of the same job on the same device found the optimum."""

    @classmethod
    def over(
        cls,
        least_w: float,
        most_w: float,
        step_w: float = STEP_W,
        max_slowdown: float | None = 0.10,
        probe_steps: float = 50.0,
        remembered: Mapping[str, float] | None = None,
    ) -> LimitSearch:
        """Return a search that has seen nothing yet; `remembered` is what an earlier one left.

        Raises ValueError when there is nothing between the two limits to choose from.
        """
        if not 0 < least_w <= most_w or step_w <= 0:
            raise ValueError(f"search a limit from {least_w:g} to {most_w:g} W in steps of {step_w:g} W")
        count = int((most_w - least_w) / step_w + 1e-9)
        limits_w = tuple(most_w - step_w * k for k in range(count, -1, -1))
        first = None
        if remembered is not None:
            first = min(range(len(limits_w)), key=lambda k: abs(limits_w[k] - remembered["limit_w"]))
        return cls(limits_w, (Probe(),) * len(limits_w), max_slowdown, probe_steps, first)

    def observe(self, limit_w: float, energy_j: float, steps: float, seconds: float) -> LimitSearch:
        """Return the search after steps at one limit, which need not be the wanted one.

        Give it only what was measured after the device had settled at the limit, at one level, with nobody
        else holding the device down.
        """
        if steps <= 0 or seconds <= 0 or limit_w not in self.limits_w:
            return self
        k = self.limits_w.index(limit_w)
        seen = (*self.seen[:k], self.seen[k].plus(energy_j, steps, seconds), *self.seen[k + 1 :])
        return replace(self, seen=seen)

    @property
    def wanted_w(self) -> float:
        """The limit to run at now: the one to be probed, and when the search is done the best."""
        probe = self._next()
        return self.limits_w[self._best() if probe is None else probe]

    @property
    def done(self) -> bool:
        """Whether both neighbours of the best limit are known to be worse, or are out of bounds."""
        return self._next() is None

    @property
    def probes(self) -> int:
        """How many limits are known."""
        return len(self._known())

    @property
    def saving(self) -> float:
        """The share of the energy per step that the best limit saves against the highest; 0 at first."""
        if not self._is_known(self._top):
            return 0.0
        return 1 - self._step_j(self._best()) / self._step_j(self._top)

    @property
    def slowdown(self) -> float:
        """How much longer a step takes at the best known limit, as a share; 0 at first."""
        if not self._is_known(self._top):
            return 0.0
        return self._step_s(self._best()) / self._step_s(self._top) - 1

    def remembered(self) -> dict[str, float]:
        """Return what the next run of the same job on the same device starts from; empty: nothing yet."""
        return {"limit_w": self.limits_w[self._best()]} if self.done else {}

    def _next(self) -> int | None:
        # The highest comes first: it is where the job stands, and what a slow-down is measured against.
        if not self._is_known(self._top):
            return self._top
        known, floor = self._known(), self._too_slow()
        if self.first is not None and self.first > floor and not self._is_known(self.first):
            return self.first
        # Of limits that cost alike to the last joule none binds: look on below the lowest of them.
        lowest = min((k for k in known if k > floor), key=lambda k: (self._step_j(k), k))
        below = max([k for k in known if k < lowest] + [floor])
        above = min((k for k in known if k > lowest), default=lowest + 1)
        if lowest - below <= 1 and above - lowest <= 1:
            return None
        if lowest - below >= above - lowest:
            return lowest - 1 if self.first is not None else (below + lowest) // 2
        return lowest + 1 if self.first is not None else (lowest + above + 1) // 2

    def _best(self) -> int:
        allowed = [k for k in self._known() if k > self._too_slow()]
        if not allowed:
            return self._top
        least_j = min(self._step_j(k) for k in allowed)
        return max(k for k in allowed if self._step_j(k) <= least_j * (1 + ALIKE))

    def _too_slow(self) -> int:
        """Return the highest limit known to be too slow, with which all below it are; -1: none."""
        if self.max_slowdown is None or not self._is_known(self._top):
            return -1
        longest_s = self._step_s(self._top) * (1 + self.max_slowdown)
        return max((k for k in self._known() if self._step_s(k) > longest_s), default=-1)

    @property
    def _top(self) -> int:
        return len(self.limits_w) - 1

    def _known(self) -> list[int]:
        return [k for k in range(len(self.limits_w)) if self._is_known(k)]

    def _is_known(self, k: int) -> bool:
        return self.seen[k].steps >= self.probe_steps

    def _step_j(self, k: int) -> float:
        return self.seen[k].energy_j / self.seen[k].steps

    def _step_s(self, k: int) -> float:
        return self.seen[k].seconds / self.seen[k].steps
