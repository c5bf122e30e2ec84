"""Which resolution answers for which stretch of time: pure arithmetic on the marks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from greend.store.marks import Marks
from greend.store.schema import TIERS, Tier

FOREVER_S = 1 << 53
"""Later than any row; still exact as a JSON number."""


def cover(start_s: int, end_s: int, marks: Marks) -> Iterator[tuple[Tier, int, int]]:
    """Cut [start, end) into pieces, each with the coarsest tier that holds it whole.

    The rows whose start lies in a piece of its tier are, all pieces together, each joule once. Where
    the fine rows are forgotten, a coarse row that straddles an edge counts where it starts.
    """
    bounds = sorted({0, FOREVER_S, *(marks.kept_from(tier) for tier in TIERS)})
    for low, high in pairwise(bounds):
        living = [tier for tier in reversed(TIERS) if marks.kept_from(tier) <= low]
        yield from _split(max(start_s, low), min(end_s, high), living, marks)


def _split(start_s: int, end_s: int, tiers: Sequence[Tier], marks: Marks) -> Iterator[tuple[Tier, int, int]]:
    """Take the whole buckets of the coarsest tier from the middle, and give both ends to the finer ones."""
    if start_s >= end_s:
        return
    tier, *finer = tiers
    if not finer:
        yield tier, start_s, end_s
        return
    done = marks.done_until(tier)
    low = -(-start_s // tier.size_s) * tier.size_s
    high = (end_s if done is None else min(end_s, done)) // tier.size_s * tier.size_s
    if low >= high:
        yield from _split(start_s, end_s, finer, marks)
        return
    yield from _split(start_s, low, finer, marks)
    yield tier, low, high
    yield from _split(high, end_s, finer, marks)
