"""What a step costs at each resource level, in joules and in seconds, learned while the job runs."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from greend.governor.log_filter import OFFSET_SD, LogFilter

KNOWN_STEPS = 20.0
"""A level is known by its own measurements from so many steps on."""
LINE_SD = 0.12
"""Relative error of a level that lies on the line through two measured ones."""
DOUBT = 0.004
"""Relative doubt about a level's cost that grows with each observation of another level..."""
MOST_DOUBT = 0.08
"""...up to this."""
LEAST_STEP = 1e-12
"""A step of fewer joules or seconds than this was not measured."""
DEAD, ALIVE = 0.97, 0.94
"""A level whose step costs more than this share of the next level's is dead; below the other, alive again."""

_Expected = Sequence[tuple[float, float]]
"""By level: logarithm of what a step costs, and its relative error."""


@dataclass(frozen=True, slots=True)
class LevelProfile:
    """Joules and seconds of a step at each level, with their uncertainty.

    `costs` are the agent's estimates relative to the top (from FLOPs), used where nothing was measured.
    """

    costs: tuple[float, ...]
    energy: LogFilter
    time: LogFilter
    steps: tuple[float, ...]
    """Steps seen at each level."""
    age: tuple[int, ...]
    """Observations of other levels since each level was last seen."""
    timed: tuple[float, ...] = ()
    """Steps seen at each level with their seconds."""
    dead: frozenset[int] = field(default_factory=frozenset)
    """Levels that save nothing against the next higher one, as measured."""
    _asked: dict[tuple[str, float], tuple[float, ...] | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Answers already given: each constraint asks the same, and one takes some 25 µs of the turn's 200."""
    _expected_j: list[tuple[float, float]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )
    _expected_s: list[tuple[float, float]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )
    """Logarithm and relative error of each level's cost, filled in when first asked for."""

    @classmethod
    def prior(cls, costs: Sequence[float], remembered: Mapping[str, Any] | None = None) -> LevelProfile:
        """Return a profile that has seen nothing yet, or what an earlier run `remembered`.

        What was remembered of another set of levels, or makes no sense, is passed over.
        """
        zeros = (0.0,) * len(costs)
        fresh = LogFilter.prior(costs)
        profile = cls(tuple(costs), fresh, fresh, zeros, (0,) * len(costs), zeros)
        energy = _recalled(remembered, "step_j", costs)
        if energy is None:
            return profile
        time = _recalled(remembered, "step_s", costs) or fresh
        steps = tuple(KNOWN_STEPS if seen else 0.0 for seen in energy.seen)
        timed = tuple(KNOWN_STEPS if seen else 0.0 for seen in time.seen)
        return profile._with_dead(replace(profile, energy=energy, time=time, steps=steps, timed=timed))

    @property
    def top(self) -> int:
        """The level of the untouched model."""
        return len(self.costs) - 1

    def observe(
        self, level: int, energy_j: float, steps: float, seconds: float | None = None, sound: bool = True
    ) -> LevelProfile:
        """Return the profile after `steps` steps at `level` used `energy_j` joules within `seconds`.

        `sound=False` says that the turn tells nothing about the level (somebody throttled the device,
        the level changed in between, the meter stood still, the machine slept): nothing is learned.
        """
        possible = steps > 0 and energy_j >= 0 and 0 <= level <= self.top
        if not (sound and possible and LEAST_STEP <= energy_j / steps < math.inf):
            return self
        energy = _learn(self.energy, self.costs, self.steps, level, energy_j, steps)
        seen = _added(self.steps, level, steps)
        age = tuple(0 if k == level else older + 1 for k, older in enumerate(self.age))
        time, timed = self.time, self.timed
        if seconds is not None and LEAST_STEP <= seconds / steps < math.inf:
            time = _learn(self.time, self.costs, self.timed, level, seconds, steps)
            timed = _added(self.timed, level, steps)
        return self._with_dead(LevelProfile(self.costs, energy, time, seen, age, timed, self.dead))

    def known(self, level: int) -> bool:
        """Whether the level has been measured itself, in this run or the remembered one."""
        return self.steps[level] >= KNOWN_STEPS

    def step_j(self, z: float = 0.0) -> tuple[float, ...] | None:
        """Joules per step of every level, never falling from a level to the next; None: nothing known.

        `z` standard deviations above the expected cost; negative: below it. A level that was not
        measured lies on the line through its two nearest measured neighbours over the estimated
        costs: a step is a fixed part (data, logging, optimizer overhead) plus one that grows with
        the model, and one measured level alone cannot tell them apart (then: in proportion).
        """
        if ("J", z) not in self._asked:
            self._asked["J", z] = _estimate(self._joules(), self.steps, z)
        return self._asked["J", z]

    def step_s(self, z: float = 0.0) -> tuple[float, ...] | None:
        """Seconds per step of every level, as `step_j`."""
        if ("s", z) not in self._asked:
            if not self._expected_s:
                self._expected_s.extend(_all_expected(self.time, self.costs, self.timed))
            self._asked["s", z] = _estimate(self._expected_s, self.timed, z)
        return self._asked["s", z]

    def step_sd(self) -> tuple[float, ...]:
        """Relative standard deviation of each level's joules per step."""
        return tuple(sd for _, sd in self._joules())

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

    def alive(self, level: int) -> int:
        """Return the level itself, or the next higher one that costs no more and is better."""
        while level in self.dead:
            level += 1
        return level

    def remembered(self) -> dict[str, Any]:
        """Return what the next run of the same command on the same device starts from; JSON-able."""
        step_j, step_s = _memory(self.energy, self.steps), _memory(self.time, self.timed)
        return {"costs": list(self.costs), "step_j": step_j, "step_s": step_s}

    def _joules(self) -> _Expected:
        if not self._expected_j:
            self._expected_j.extend(_all_expected(self.energy, self.costs, self.steps))
        return self._expected_j

    def _with_dead(self, after: LevelProfile) -> LevelProfile:
        dead = frozenset(k for k in range(self.top) if after._is_dead(k))
        return after if dead == after.dead else replace(after, dead=dead)

    def _is_dead(self, level: int) -> bool:
        if not (self.known(level) and self.known(level + 1)):
            return False
        ratio = math.exp(self.energy.mean(level) - self.energy.mean(level + 1))
        return ratio > (ALIVE if level in self.dead else DEAD)


def _learn(
    learner: LogFilter,
    costs: tuple[float, ...],
    steps: tuple[float, ...],
    level: int,
    amount: float,
    more: float,
) -> LogFilter:
    """Observe; a level seen for the first time is first expected on the line through the known ones."""
    if not learner.seen[level] and level < len(costs) - 1 and (known := _known(steps)):
        log_cost, sd = _unseen(learner.all(), costs, known, level)
        learner = learner.expecting(level, log_cost, sd)
    return learner.observe(level, amount, more)


def _known(steps: tuple[float, ...]) -> list[int]:
    return [k for k, n in enumerate(steps) if n >= KNOWN_STEPS]


def _unseen(found: _Expected, costs: tuple[float, ...], known: list[int], level: int) -> tuple[float, float]:
    """Logarithm of the cost of a level that was never seen, by the known ones, and its relative error."""
    above = bisect(known, level)
    inside = 0 < above < len(known)
    if inside:
        a, b = known[above - 1], known[above]
    else:
        a, b = (known[0], known[min(1, len(known) - 1)]) if not above else (known[-1], known[-2:][0])
    if a == b:
        return found[a][0] + math.log(costs[level] / costs[a]), OFFSET_SD
    at_a = math.exp(found[a][0])
    slope = (at_a - math.exp(found[b][0])) / (costs[a] - costs[b])
    line = at_a + slope * (costs[level] - costs[a])
    if inside:
        return math.log(line), LINE_SD
    # Neither part of a step is negative, so that it costs no less than in proportion below a level and no
    # more than that above it; two near neighbours whose estimates are off would say anything.
    low, high = sorted((at_a, at_a * costs[level] / costs[a]))
    return math.log(min(max(line, low), high)), OFFSET_SD


def _all_expected(learner: LogFilter, costs: tuple[float, ...], steps: tuple[float, ...]) -> _Expected:
    """Logarithm of each level's cost and its relative error."""
    known, found = _known(steps), learner.all()
    # Also few steps of its own say more than the line from which a level was first expected: a try that lasts
    # for two turns would otherwise teach nothing.
    return [
        one if learner.seen[level] or not known else _unseen(found, costs, known, level)
        for level, one in enumerate(found)
    ]


def _estimate(expected: _Expected, steps: tuple[float, ...], z: float) -> tuple[float, ...] | None:
    if not any(n >= KNOWN_STEPS for n in steps):
        return None
    values = tuple([math.exp(log_cost + z * sd) for log_cost, sd in expected])
    if list(values) == sorted(values):
        return values
    return monotone(values, [1 / max(sd, 1e-3) ** 2 for _, sd in expected])


def monotone(values: Sequence[float], weights: Sequence[float]) -> tuple[float, ...]:
    """Return the nearest values that do not fall (pool adjacent violators; weighted least squares)."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        pool = (value, weight, 1)
        while pools and pools[-1][0] > pool[0]:
            before, heavy, count = pools.pop()
            total = heavy + pool[1]
            pool = ((before * heavy + pool[0] * pool[1]) / total, total, count + pool[2])
        pools.append(pool)
    return tuple(value for value, _, count in pools for _ in range(count))


def _added(values: tuple[float, ...], index: int, more: float) -> tuple[float, ...]:
    return (*values[:index], values[index] + more, *values[index + 1 :])


def _memory(learner: LogFilter, steps: tuple[float, ...]) -> list[list[float] | None]:
    """The mean (in J or s) and its relative error of each level that was measured."""
    offset_sd = [math.sqrt(max(learner.covariance[1 + k][1 + k], 0.0)) for k in range(len(steps))]
    return [
        [math.exp(learner.mean(k)), offset_sd[k]] if n >= KNOWN_STEPS else None for k, n in enumerate(steps)
    ]


def _recalled(remembered: Mapping[str, Any] | None, key: str, costs: Sequence[float]) -> LogFilter | None:
    """Return the filter that a memory describes, or None where it does not fit or makes no sense."""
    try:
        if remembered is None or list(remembered["costs"]) != list(costs):
            return None
        pairs = [None if pair is None else (float(pair[0]), float(pair[1])) for pair in remembered[key]]
        if len(pairs) != len(costs) or all(pair is None for pair in pairs):
            return None
        if any(pair and not (0 < pair[0] < math.inf and 0 <= pair[1] < math.inf) for pair in pairs):
            return None
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    logs = [None if pair is None else math.log(pair[0]) for pair in pairs]
    return LogFilter.remembering(costs, logs, [None if pair is None else pair[1] for pair in pairs])
