"""How long a step takes at each level, as measured while the job runs."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from greend.clock import NS

REMEMBERED = 31
"""The median of so many steps: an evaluation or a checkpoint between two steps does not move it."""
UNSETTLED = 2
"""So many steps after a change of level are not learned: caches, allocators and kernels are new to them."""


@dataclass(frozen=True, slots=True)
class LevelFigures:
    """What is known about one level."""

    level: int
    cost: float
    """FLOPs of a step, estimated, relative to the untouched model."""
    step_s: float | None
    """Seconds from one step's end to the next, without what the pace makes it wait; None: not measured."""
    steps: int
    """Optimizer steps made at this level."""
    step_j: float | None
    """Joules per step, where a daemon has measured them."""


class Times:
    """The last steps of each level; a step costs one subtraction, and a median only who asks."""

    def __init__(self) -> None:
        self._recent: dict[int, deque[int]] = {}
        self._steps: dict[int, int] = {}
        self._last_ns = 0
        self._level: int | None = None
        self._settled = 0

    def stepped(self, level: int, now_ns: int) -> None:
        """Note the end of a step. The clock stands still while the loop is made to wait."""
        self._steps[level] = self._steps.get(level, 0) + 1
        if level != self._level:
            self._level, self._settled = level, 0
        elif self._settled < UNSETTLED:
            self._settled += 1
        elif level in self._recent:
            self._recent[level].append(now_ns - self._last_ns)
        else:
            self._recent[level] = deque([now_ns - self._last_ns], REMEMBERED)
        self._last_ns = now_ns

    def table(self, costs: Sequence[float], step_j: Sequence[float | None]) -> list[LevelFigures]:
        """Return what is known about levels of these costs, some of whose joules may be known."""
        joules = [*step_j, *[None] * len(costs)]
        return [
            LevelFigures(level, cost, self._step_s(level), self._steps.get(level, 0), joules[level])
            for level, cost in enumerate(costs)
        ]

    def _step_s(self, level: int) -> float | None:
        recent = self._recent.get(level)
        return statistics.median(recent) / NS if recent else None
