"""In which hours of a forecast a job's steps are made, and at what mean cost.

A busy device draws about the same power at each level: what a lower level saves is time, and with it
the grams of the hours that are not needed any more. So an hour's grams do not depend on its level; as
returns diminish, the best mix of levels is the same in all hours, and what is to be chosen is the hours. The
cleanest come first, as with CarbonScaler (Hanafy et al., arXiv 2302.08681), where a job may wait.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from greend.clock import NS
from greend.governor.conditions import Hour
from greend.governor.hull import mix

J_PER_KWH = 3.6e6
HALVINGS = 12
"""Of the range of mean costs: the error is then far below that of what a step costs."""

_Hours = Sequence[tuple[float, float, int]]
"""Intensity in g/kWh, length in seconds, and place in the forecast; in the order in which they are used."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is left to do: so many steps, at what their levels cost."""

    step_j: tuple[float, ...]
    step_s: tuple[float, ...]
    levels: tuple[int, ...]
    """On the hull, least joules first."""
    steps: float

    @property
    def least_j(self) -> float:
        """Joules per step at the least level."""
        return self.step_j[self.levels[0]]

    @property
    def most_j(self) -> float:
        """Joules per step at the top."""
        return self.step_j[self.levels[-1]]

    def seconds(self, per_step_j: float) -> float:
        """Return how long a step takes on average where it uses so many joules on average."""
        found = mix(self.levels, self.step_j, per_step_j)
        return (1 - found.share) * self.step_s[found.low] + found.share * self.step_s[found.high]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a step may use, whether to wait, and what the whole comes to."""

    per_step_j: float
    waits: bool
    now_g_per_kwh: float
    mean_g_per_kwh: float
    """Of the hours in which the work would be done at the top and without waiting."""
    dirtiest_g_per_kwh: float
    """Of the hours in which it is done."""
    grams: float
    shrunk_g: float
    """Saved against the top from now on by using fewer joules..."""
    shifted_g: float
    """...and by using them in other hours; negative where fewer hours leave out the clean ones."""


@dataclass(frozen=True, slots=True)
class _Fill:
    grams: float
    now_steps: float
    dirtiest: float


def plan_over(ahead: Sequence[Hour], work: Work, left_g: float, done_by_wall_ns: int | None) -> Plan:
    """Return the plan that makes all steps at the highest mean cost within `left_g`.

    `ahead` begins with the hour under way, in order; after its end its mean is taken to go on. With a time
    to be done by, the cleanest hours until then are used. Without one, or where that is too early even
    at the least level, the hours are used as they come, unless only waiting can meet the budget.
    """
    straight = _hours(ahead, None)
    after = math.fsum(c * s for c, s, _ in straight) / math.fsum(s for _, s, _ in straight)
    until = _hours(ahead, done_by_wall_ns)
    fits = work.steps * work.seconds(work.least_j) <= math.fsum(s for _, s, _ in until)
    chosen, beyond = straight, after
    as_they_come = _fill(straight, work, work.least_j, after)
    if fits and (done_by_wall_ns is not None or as_they_come.grams > left_g):
        cleanest = sorted(until)
        if done_by_wall_ns is not None or _fill(cleanest, work, work.least_j, math.inf).grams <= left_g:
            # What would be done after the time is worth nothing.
            chosen, beyond = cleanest, math.inf
    per_step_j = _highest(chosen, work, left_g, beyond)
    found = _fill(chosen, work, per_step_j, beyond)
    usual = _fill(straight, work, work.most_j, after)
    usual_g_per_j = usual.grams / (work.steps * work.most_j)
    return Plan(
        per_step_j=per_step_j,
        waits=found.now_steps <= 0,
        now_g_per_kwh=ahead[0].g_per_kwh,
        mean_g_per_kwh=usual_g_per_j * J_PER_KWH,
        dirtiest_g_per_kwh=found.dirtiest,
        grams=found.grams,
        shrunk_g=work.steps * (work.most_j - per_step_j) * usual_g_per_j,
        shifted_g=work.steps * per_step_j * usual_g_per_j - found.grams,
    )


def _highest(hours: _Hours, work: Work, left_g: float, beyond: float) -> float:
    """Return the highest mean cost of a step within the grams, or the least level's where none is."""
    low, high = work.least_j, work.most_j
    if _fill(hours, work, high, beyond).grams <= left_g:
        return high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _fill(hours, work, middle, beyond).grams <= left_g:
            low = middle
        else:
            high = middle
    return low


def _fill(hours: _Hours, work: Work, per_step_j: float, beyond: float) -> _Fill:
    """Make the steps in these hours one after another at one mean cost; what is left, at `beyond` g/kWh."""
    step_s = work.seconds(per_step_j)
    left, weighed, now_steps, dirtiest = work.steps, 0.0, 0.0, 0.0
    for g_per_kwh, seconds, place in hours:
        if left <= 0:
            break
        steps = min(left, seconds / step_s)
        left -= steps
        weighed += steps * g_per_kwh
        dirtiest = max(dirtiest, g_per_kwh)
        if place == 0:
            now_steps = steps
    if left > 1e-9 * work.steps:
        weighed += left * beyond
        dirtiest = max(dirtiest, beyond)
    return _Fill(weighed * per_step_j / J_PER_KWH, now_steps, dirtiest)


def _hours(ahead: Sequence[Hour], until_wall_ns: int | None) -> list[tuple[float, float, int]]:
    found = []
    for place, hour in enumerate(ahead):
        end = hour.end_wall_ns if until_wall_ns is None else min(hour.end_wall_ns, until_wall_ns)
        if end > hour.start_wall_ns:
            found.append((hour.g_per_kwh, (end - hour.start_wall_ns) / NS, place))
    return found
