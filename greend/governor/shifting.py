"""Where in a forecast a job's joules go: at one price of a gram over all hours.

CarbonScaler (Hanafy et al., arXiv 2302.08681) takes increments of work by their marginal progress per
gram until the work is done. With levels as the increments this is one price λ for all hours: in an hour
of intensity c the best level is that of most quality - λ·c·joules a step. λ is the price at which the grams
are used up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from greend.clock import NS
from greend.governor.conditions import Hour

J_PER_KWH = 3.6e6
HALVINGS = 24
"""Of the price's interval, on a scale on which neighbouring levels of any hull lie further apart."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is left to do: so many steps, at what their levels cost."""

    step_j: tuple[float, ...]
    step_s: tuple[float, ...]
    quality: tuple[float, ...]
    levels: tuple[int, ...]
    """On the hull, least joules first."""
    steps: float

    def best(self, g_per_kwh: float, price: float) -> int:
        """Return the level of most quality less the price of its grams, in quality per gram."""
        per_j = price * g_per_kwh / J_PER_KWH
        return max(self.levels, key=lambda k: (self.quality[k] - per_j * self.step_j[k], -k))


@dataclass(frozen=True, slots=True)
class Plan:
    """What follows for the hour that has begun, and what the whole comes to."""

    now_step_j: float
    """Joules that a step may use in this hour."""
    now_steps: float
    """Steps to be made in it."""
    now_g_per_kwh: float
    mean_g_per_kwh: float
    """Of all hours until the work would be done without waiting."""
    hour_wall_ns: int
    grams: float
    shrunk_g: float
    """Saved against the top from now on, by using fewer joules..."""
    shifted_g: float
    """...and by using them in cleaner hours."""
    waits: bool
    below_g_per_kwh: float
    """The dirtiest hour in which work is done."""


@dataclass(frozen=True, slots=True)
class _Fill:
    grams: float
    joules: float
    now_level: int
    now_steps: float
    dirtiest: float


def plan_over(
    ahead: Sequence[Hour], work: Work, left_g: float, now_wall_ns: int, done_by_wall_ns: int | None
) -> Plan:
    """Return the plan that makes all steps with most quality within `left_g`.

    `ahead` begins with the hour that is under way, in order; after its end its mean is taken to go on. With a
    time to be done by, the cleanest hours until then are taken; without one, or where that is too late
    for it, the hours as they come, unless only waiting can meet the budget.
    """
    within = [h for h in ahead if done_by_wall_ns is None or h.start_wall_ns < done_by_wall_ns]
    hours = [
        (h.g_per_kwh, (_end(h, done_by_wall_ns) - h.start_wall_ns) / NS, n) for n, h in enumerate(within)
    ]
    straight = [(h.g_per_kwh, (h.end_wall_ns - h.start_wall_ns) / NS, n) for n, h in enumerate(ahead)]
    after = sum(c * s for c, s, _ in straight) / sum(s for _, s, _ in straight)
    cleanest = sorted(hours)
    choice = straight
    if done_by_wall_ns is not None and _least_s(work) <= sum(s for _, s, _ in hours):
        choice = cleanest
    elif _fill(choice, work, float("inf"), after).grams > left_g:
        fits = _least_s(work) <= sum(s for _, s, _ in hours)
        if fits and _fill(cleanest, work, float("inf"), after).grams <= left_g:
            choice = cleanest
    dear, cheap = _around(choice, work, left_g, after)
    gap = dear.grams - cheap.grams
    # Between two prices the level of an hour jumps; the mix of both plans uses the grams up.
    share = min(max((left_g - cheap.grams) / gap, 0.0), 1.0) if gap > 0 else 0.0
    grams = cheap.grams + share * gap
    joules = cheap.joules + share * (dear.joules - cheap.joules)
    now_steps = cheap.now_steps + share * (dear.now_steps - cheap.now_steps)
    now_j = (1 - share) * work.step_j[cheap.now_level] + share * work.step_j[dear.now_level]
    usual = _fill(straight, work, 0.0, after)
    usual_c = usual.grams / usual.joules if usual.joules > 0 else 0.0
    return Plan(
        now_step_j=now_j,
        now_steps=now_steps,
        now_g_per_kwh=ahead[0].g_per_kwh,
        mean_g_per_kwh=usual_c * J_PER_KWH,
        hour_wall_ns=ahead[0].end_wall_ns,
        grams=grams,
        shrunk_g=(usual.joules - joules) * usual_c,
        shifted_g=joules * usual_c - grams,
        waits=now_steps <= 0,
        below_g_per_kwh=max(cheap.dirtiest, dear.dirtiest),
    )


def _around(
    hours: Sequence[tuple[float, float, int]], work: Work, left_g: float, after: float
) -> tuple[_Fill, _Fill]:
    """Return the plans just above and just within the grams, by halving the price."""
    free, least = _fill(hours, work, 0.0, after), _fill(hours, work, float("inf"), after)
    if free.grams <= left_g:
        return free, free
    if least.grams >= left_g:
        return least, least
    low, high = 0.0, 1.0
    while _fill(hours, work, high, after).grams > left_g:
        low, high = high, high * 4
    dear, cheap = _fill(hours, work, low, after), _fill(hours, work, high, after)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = _fill(hours, work, middle, after)
        if found.grams > left_g:
            low, dear = middle, found
        else:
            high, cheap = middle, found
    return dear, cheap


def _fill(hours: Sequence[tuple[float, float, int]], work: Work, price: float, after: float) -> _Fill:
    """Make the steps in these hours in turn (intensity, seconds, index) at one price, and count."""
    left, grams, joules, dirtiest = work.steps, 0.0, 0.0, 0.0
    now_level, now_steps = work.levels[0], 0.0
    for g_per_kwh, seconds, index in hours:
        if left <= 0:
            break
        level = work.levels[0] if price == float("inf") else work.best(g_per_kwh, price)
        steps = min(left, seconds / work.step_s[level])
        if index == 0:
            now_level, now_steps = level, steps
        left -= steps
        joules += steps * work.step_j[level]
        grams += steps * work.step_j[level] * g_per_kwh / J_PER_KWH
        dirtiest = max(dirtiest, g_per_kwh)
    if left > 0:
        level = work.levels[0] if price == float("inf") else work.best(after, price)
        joules += left * work.step_j[level]
        grams += left * work.step_j[level] * after / J_PER_KWH
        dirtiest = max(dirtiest, after)
    return _Fill(grams, joules, now_level, now_steps, dirtiest)


def _least_s(work: Work) -> float:
    return work.steps * work.step_s[work.levels[0]]


def _end(hour: Hour, done_by_wall_ns: int | None) -> int:
    return hour.end_wall_ns if done_by_wall_ns is None else min(hour.end_wall_ns, done_by_wall_ns)
