"""Errors of sums."""

from __future__ import annotations

import math
from collections.abc import Iterable


def combined_error(parts: Iterable[tuple[float, float]]) -> float | None:
    """Return the relative error of a sum of (joules, relative error) parts that err independently.

    Variances of independent parts add; None for an empty sum or one of zero joules.
    """
    pairs = list(parts)
    total = math.fsum(energy for energy, _ in pairs)
    if not pairs or total <= 0:
        return None
    return math.sqrt(math.fsum((energy * error) ** 2 for energy, error in pairs)) / total
