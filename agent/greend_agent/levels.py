"""What a resource level means: a share of the model's cost, and the widths that bring it about (pure)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

LEAST_WIDTH = 1 / 8
"""No hidden layer gets narrower than this part: what is left of a block's cost is then in other places."""
GEMM_MULTIPLE = 8
"""Matrix kernels are fastest at multiples of 8."""


@dataclass(frozen=True, slots=True)
class Work:
    """The FLOPs of one layer in a step, and the groups that its input and output width belong to."""

    flops: float
    input_group: int | None = None
    output_group: int | None = None


@dataclass(frozen=True, slots=True)
class LevelTable:
    """The levels of a model, least first; the last is the untouched model."""

    counts: tuple[tuple[int, ...], ...]
    """For each level, the hidden width of each group."""
    costs: tuple[float, ...]
    """For each level, its FLOPs per step relative to the last."""

    def __len__(self) -> int:
        return len(self.costs)


def solve(widths: Sequence[int], work: Sequence[Work], total: float, levels: int) -> LevelTable:
    """Return up to `levels` levels whose costs are spread evenly, (k+1)/L of the whole each.

    Where not even the least widths reach 1/L, the levels are spread evenly between what they do reach and
    the whole. Levels that would coincide are left out.
    """
    full = tuple(widths)
    total = max(total, sum(w.flops for w in work), 1.0)

    def at(fraction: float) -> tuple[int, ...]:
        return tuple(_count(width, fraction, levels) for width in widths)

    def cost(counts: Sequence[int]) -> float:
        return 1.0 - sum(w.flops * (1.0 - _share(w, counts, full)) for w in work) / total

    floor = cost(at(LEAST_WIDTH))
    found: list[tuple[tuple[int, ...], float]] = []
    for k in range(levels - 1):
        target = (k + 1) / levels if floor <= 1 / levels else floor + (1 - floor) * k / (levels - 1)
        counts = at(_fraction_for(target, lambda fraction: cost(at(fraction))))
        if counts != full and (not found or _above(counts, found[-1][0])):
            found.append((counts, cost(counts)))
    found.append((full, 1.0))
    return LevelTable(tuple(c for c, _ in found), tuple(c for _, c in found))


def _fraction_for(target: float, cost: Callable[[float], float]) -> float:
    low, high = LEAST_WIDTH, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) < target else (low, middle)
    # Widths come in multiples, so the cost jumps here: the nearer side of the jump.
    return min((high, low), key=lambda fraction: abs(cost(fraction) - target))


def _count(width: int, fraction: float, levels: int) -> int:
    # The largest multiple that still leaves every level a width of its own.
    unit = next((u for u in (GEMM_MULTIPLE, 4, 2) if width % u == 0 and width // u >= levels), 1)
    least = max(unit, min(2, width))  # a tensor of one entry could not be told from a step counter
    return min(width, max(least, unit * round(width * fraction / unit)))


def _share(work: Work, counts: Sequence[int], full: Sequence[int]) -> float:
    share = 1.0
    for group in (work.input_group, work.output_group):
        if group is not None:
            share *= counts[group] / full[group]
    return share


def _above(counts: Sequence[int], below: Sequence[int]) -> bool:
    return all(a >= b for a, b in zip(counts, below, strict=True)) and tuple(counts) != tuple(below)
