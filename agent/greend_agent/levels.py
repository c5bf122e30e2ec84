"""What a resource level means: a share of the model's cost, and the positions that bring it about (pure)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

LEAST = 1 / 8
"""No dial is turned lower than this part: what is left of a block's cost is then in other places."""

WORTH_A_LEVEL = 0.01
"""Levels that differ by less than this part of the whole could not be told apart by measuring."""


class Turnable(Protocol):
    """What a ladder needs to know of a dial."""

    @property
    def full(self) -> int:
        """Its position in the untouched model."""

    def count(self, fraction: float, levels: int) -> int:
        """Return the position nearest to a fraction."""

    def share(self, count: int, part: Any) -> float:
        """Return how much of a part's work remains at a position."""


@dataclass(frozen=True, slots=True)
class Work:
    """The FLOPs of one part of a model, and the dials with which they fall."""

    flops: float
    part: Any = None
    dials: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LevelTable:
    """The levels of a model, least first; the last is the untouched model."""

    counts: tuple[tuple[int, ...], ...]
    """For each level, the position of each dial."""
    costs: tuple[float, ...]
    """For each level, its FLOPs per step relative to the last."""

    def __len__(self) -> int:
        return len(self.costs)


def solve(
    dials: Sequence[Turnable], work: Sequence[Work], total: float, levels: int | Sequence[float]
) -> LevelTable:
    """Return levels of the wanted costs; a number of levels stands for costs spread evenly, (k+1)/L each.

    All dials are turned to the same fraction. Where not even the least reaches 1/L, the levels are spread
    evenly between what it does reach and the whole. Levels that would hardly differ are left out.
    """
    full = tuple(dial.full for dial in dials)
    total = max(total, sum(w.flops for w in work), 1.0)
    number = levels if isinstance(levels, int) else len(levels)

    def at(fraction: float) -> tuple[int, ...]:
        return tuple(dial.count(fraction, number) for dial in dials)

    def cost(counts: Sequence[int]) -> float:
        return 1.0 - sum(w.flops * (1.0 - _share(w, dials, counts)) for w in work) / total

    found: list[tuple[tuple[int, ...], float]] = []
    for target in _targets(levels, cost(at(LEAST))):
        counts = at(_fraction_for(target, lambda fraction: cost(at(fraction))))
        apart = not found or (_above(counts, found[-1][0]) and cost(counts) >= found[-1][1] + WORTH_A_LEVEL)
        if apart and cost(counts) <= 1.0 - WORTH_A_LEVEL:
            found.append((counts, cost(counts)))
    found.append((full, 1.0))
    return LevelTable(tuple(c for c, _ in found), tuple(c for _, c in found))


def _targets(levels: int | Sequence[float], floor: float) -> list[float]:
    if not isinstance(levels, int):
        return sorted(target for target in levels if target < 1.0)
    if floor <= 1 / levels:
        return [(k + 1) / levels for k in range(levels - 1)]
    return [floor + (1 - floor) * k / (levels - 1) for k in range(levels - 1)]


def _fraction_for(target: float, cost: Callable[[float], float]) -> float:
    low, high = LEAST, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) < target else (low, middle)
    # Positions are whole numbers, so the cost jumps here: the nearer side of the jump.
    return min((high, low), key=lambda fraction: abs(cost(fraction) - target))


def _share(work: Work, dials: Sequence[Turnable], counts: Sequence[int]) -> float:
    share = 1.0
    for which in work.dials:
        share *= dials[which].share(counts[which], work.part)
    return share


def _above(counts: Sequence[int], below: Sequence[int]) -> bool:
    return all(a >= b for a, b in zip(counts, below, strict=True)) and tuple(counts) != tuple(below)
