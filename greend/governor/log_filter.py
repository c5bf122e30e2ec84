"""A Kalman filter over the logarithm of what a step costs at each level: one shared factor, one offset each.

What makes one level dearer (a hotter chip, a neighbour, longer batches) makes all of them dearer:
log cost of level l = shared + offset_l. The shared factor wanders; the offsets, relative to the top's,
hardly do. So every observation of one level also tells about those that are not run. The slow-down
factor shared by all configurations is ALERT's (Wan et al., USENIX ATC 2020); the offsets are ours.
Plain Python: the daemon has no numpy, and a level set has about a dozen levels at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

Matrix = tuple[tuple[float, ...], ...]

OFFSET_SD = 0.25
"""Standard deviation of an offset that comes from the agent's estimate (FLOPs) alone."""
RUN_SD = 0.1
"""By how much a whole run may differ from the last one of the same command on the same device."""
UNKNOWN_SD = 30.0
"""The shared factor before anything is seen: any size of a step is possible."""
STEP_NOISE = 0.06
"""Relative standard deviation of one step."""
COUNT_NOISE = 0.3
"""Standard deviation, in steps, of how many were made between two looks."""
METER_NOISE = 0.01
"""Relative standard deviation of a turn's joules, however many steps it has."""
WALK = 0.002
"""Relative standard deviation by which the shared factor wanders from one observation to the next."""
OFFSET_WALK = 0.0002
"""The same for the offset of a level that was seen."""
ODD = 4.0
"""Standard deviations beyond which an observation is odd..."""
REGIME = 4
"""...and so many odd ones in a row on the same side are a change for good, which is followed at once."""
REGIME_SD = 0.1
YOUNG = 8
"""A level with fewer observations than this is hardly known."""
SCATTER_MEMORY = 0.95
LEAST_SCATTER, MOST_SCATTER = 0.05, 25.0


@dataclass(frozen=True, slots=True)
class LogFilter:
    """State and covariance; index 0 is the shared factor, 1 + level the offset of a level."""

    state: tuple[float, ...]
    covariance: Matrix
    seen: tuple[int, ...]
    """How often each level was observed; one that is remembered from an earlier run counts as well known."""
    scatter: float = 1.0
    """How much more the observations scatter than the noises above say, as a ratio of variances."""
    odd: int = 0
    """How many odd observations came last, with the sign of their side."""

    @classmethod
    def prior(cls, costs: Sequence[float]) -> LogFilter:
        """Return a filter that has seen nothing: offsets by estimated costs, relative to the top's 1.0."""
        size = len(costs)
        offsets = (math.log(max(cost, 1e-6) / costs[-1]) for cost in costs)
        variances = (UNKNOWN_SD**2, *(OFFSET_SD**2,) * (size - 1), 0.0)
        return cls((0.0, *offsets), _diagonal(variances), (0,) * size)

    @classmethod
    def remembering(
        cls, costs: Sequence[float], logs: Sequence[float | None], sds: Sequence[float | None]
    ) -> LogFilter:
        """Return a filter that starts where an earlier run ended; a level unknown then is a None."""
        fresh = cls.prior(costs)
        known = [k for k, value in enumerate(logs) if value is not None]
        if not known:
            return fresh
        anchor = known[-1]
        shared = (logs[anchor] or 0.0) - fresh.state[1 + anchor]
        state, variances = [shared, *fresh.state[1:]], [RUN_SD**2, *(OFFSET_SD**2,) * (len(costs) - 1), 0.0]
        for k in known:
            state[1 + k] = (logs[k] or 0.0) - shared
            variances[1 + k] = (sds[k] or 0.0) ** 2
        return cls(tuple(state), _diagonal(variances), tuple(YOUNG * (k in known) for k in range(len(costs))))

    def mean(self, level: int) -> float:
        """Logarithm of what a step costs at a level."""
        return self.state[0] + self.state[1 + level]

    def sd(self, level: int) -> float:
        """Standard deviation of `mean`: the relative error of the cost."""
        p, k = self.covariance, 1 + level
        return math.sqrt(max(p[0][0] + 2 * p[0][k] + p[k][k], 0.0))

    def all(self) -> list[tuple[float, float]]:
        """Return `mean` and `sd` of every level: in one pass, as each turn wants them all."""
        shared, own = self.state[0], self.covariance[0]
        base = own[0]
        return [
            (shared + offset, math.sqrt(max(base + 2 * own[k] + self.covariance[k][k], 0.0)))
            for k, offset in enumerate(self.state[1:], 1)
        ]

    def expecting(self, level: int, log_cost: float, sd: float) -> LogFilter:
        """Return the filter with a better guess for a level that was not seen yet."""
        k = 1 + level
        state = (*self.state[:k], log_cost - self.state[0], *self.state[k + 1 :])
        rows = [
            tuple(0.0 if k in (i, j) else value for j, value in enumerate(row))
            for i, row in enumerate(self.covariance)
        ]
        rows[k] = tuple(sd**2 if j == k else 0.0 for j in range(len(state)))
        return replace(self, state=state, covariance=tuple(rows))

    def observe(self, level: int, amount: float, steps: float) -> LogFilter:
        """Return the filter after `steps` steps at `level` cost `amount` in all; both more than 0."""
        k = 1 + level
        noise = STEP_NOISE**2 / steps + (COUNT_NOISE / steps) ** 2 + METER_NOISE**2
        rows = self._wandered()
        young = self.seen[level] < YOUNG
        scatter = max(self.scatter, 1.0) if young else self.scatter
        gain_row = [row[0] + row[k] for row in rows]
        own = gain_row[0] + gain_row[k]
        total = own + noise * scatter
        surprise = math.log(amount / steps) - self.mean(level)
        sigmas = surprise / math.sqrt(total)
        odd = 0
        if abs(sigmas) > ODD and self.seen[level]:
            odd = (max(self.odd, 0) + 1) if sigmas > 0 else (min(self.odd, 0) - 1)
            if abs(odd) >= REGIME:
                # A level that is hardly known was learned wrongly; one that is well known changed with all.
                changed = k if young and level < len(self.seen) - 1 else 0
                rows[changed][changed] += REGIME_SD**2
                gain_row = [row[0] + row[k] for row in rows]
                total = gain_row[0] + gain_row[k] + noise * scatter
            else:  # one checkpoint within a turn is no new regime
                surprise = math.copysign(ODD * math.sqrt(total), sigmas)
        state = tuple(x + g * surprise / total for x, g in zip(self.state, gain_row, strict=True))
        # Lists within, and one division for each row: 42 µs an observation of eight levels instead of 50.
        gains = [g / total for g in gain_row]
        covariance = tuple(
            [
                tuple([value - gain * h for value, h in zip(row, gain_row, strict=True)])
                if gain
                else tuple(row)
                for row, gain in zip(rows, gains, strict=True)
            ]
        )
        seen = tuple(n + (at == level) for at, n in enumerate(self.seen))
        scatter = self.scatter
        if not young and not odd:
            # The noise seen beyond what the state's own uncertainty explains, against the noise expected.
            ratio = max(surprise**2 - own, 0.0) / noise
            scatter = SCATTER_MEMORY * scatter + (1 - SCATTER_MEMORY) * ratio
            scatter = min(max(scatter, LEAST_SCATTER), MOST_SCATTER)
        return LogFilter(state, covariance, seen, scatter, odd)

    def _wandered(self) -> list[list[float]]:
        rows = [list(row) for row in self.covariance]
        rows[0][0] += WALK**2
        for level, seen in enumerate(self.seen[:-1]):
            if seen:
                rows[1 + level][1 + level] += OFFSET_WALK**2
        return rows


def _diagonal(variances: Sequence[float]) -> Matrix:
    size = len(variances)
    return tuple(tuple(variances[i] if i == j else 0.0 for j in range(size)) for i in range(size))
