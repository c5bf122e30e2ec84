"""Energy by time, component and consumer. Times are seconds since 1970, UTC."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sqlalchemy import Connection, func, select

from greend.store import dimensions, schema
from greend.store.cover import FOREVER_S
from greend.store.ledger import Energy, Fact, facts, summed
from greend.store.marks import read_marks
from greend.store.schema import TIERS
from greend.types import IDLE, Component, Consumer, Meter, Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRow:
    """What the machine used in [start_s, end_s)."""

    start_s: int
    end_s: int
    components: dict[Component, float]
    """Joules; they add up to `energy_j`. A component that was not read is absent."""
    energy_j: float | None
    """Joules; None: nothing was recorded."""
    seconds_covered: float
    """How long the component that was watched longest was watched; beyond end_s - start_s by at most
    one interval, since an interval counts where it starts."""
    error: float | None
    """Relative error at 95 %, weighted by energy."""
    quality: Quality
    """The worst among the parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentRow(Energy):
    """What one component used; `seconds` is how long it was watched."""

    component: Component


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerRow(Energy):
    """What one consumer used; `seconds` is how long it was there."""

    consumer: Consumer


def energy_by_time(
    connection: Connection, since_s: int, until_s: int, edges: Sequence[int] = ()
) -> list[TimeRow]:
    """Return one row for each stretch between `since_s`, the edges that lie within, and `until_s`.

    Exact up to the last flush: finer tiers answer for what is not rolled up yet and for the ends of a
    stretch. Where the finer rows are forgotten, a coarser one that straddles an edge counts whole
    where it starts. Rows without data are there too, with `energy_j` None.
    """
    if until_s <= since_s:
        return []
    bounds = [since_s, *sorted({edge for edge in edges if since_s < edge < until_s}), until_s]
    components, meters = dimensions.components(connection), dimensions.meters(connection)
    idle = _idle(connection)
    by_segment: dict[int, list[Fact]] = defaultdict(list)
    for fact in facts(connection, bounds):
        by_segment[fact.segment].append(fact)
    answer = []
    for segment, (start_s, end_s) in enumerate(pairwise(bounds)):
        found = by_segment[segment]
        joules: dict[Component, float] = defaultdict(float)
        for fact in found:
            joules[components[fact.component_id]] += fact.energy_j
        whole = _summed(found, meters, _watched(found, idle))
        answer.append(
            TimeRow(
                start_s=start_s,
                end_s=end_s,
                components=dict(joules),
                energy_j=whole.energy_j,
                seconds_covered=whole.seconds,
                error=whole.error,
                quality=whole.quality,
            )
        )
    return answer


def energy_by_component(connection: Connection, since_s: int, until_s: int) -> list[ComponentRow]:
    """Return what each component used in [since_s, until_s), by kind and device."""
    components, meters = dimensions.components(connection), dimensions.meters(connection)
    idle = _idle(connection)
    found: dict[Component, list[Fact]] = defaultdict(list)
    for fact in facts(connection, (since_s, until_s)):
        found[components[fact.component_id]].append(fact)
    return [
        ComponentRow(
            component=component,
            energy_j=energy.energy_j,
            seconds=energy.seconds,
            quality=energy.quality,
            error=energy.error,
            source=energy.source,
        )
        for component, parts in sorted(found.items(), key=lambda item: (item[0].kind, item[0].device))
        for energy in (_summed(parts, meters, _watched(parts, idle)),)
    ]


def energy_by_consumer(connection: Connection, since_s: int, until_s: int) -> list[ConsumerRow]:
    """Return what each consumer used in [since_s, until_s), most joules first."""
    consumers, meters = dimensions.consumers(connection), dimensions.meters(connection)
    found: dict[Consumer, list[Fact]] = defaultdict(list)
    for fact in facts(connection, (since_s, until_s)):
        found[consumers[fact.consumer_id]].append(fact)
    rows = [
        ConsumerRow(
            consumer=consumer,
            energy_j=energy.energy_j,
            seconds=energy.seconds,
            quality=energy.quality,
            error=energy.error,
            source=energy.source,
        )
        for consumer, parts in found.items()
        for energy in (_summed(parts, meters, _longest(parts)),)
    ]
    return sorted(rows, key=lambda row: (-(row.energy_j or 0.0), row.consumer))


def total_energy(connection: Connection, since_s: int, until_s: int) -> Energy:
    """Return what the machine used in [since_s, until_s): the sum of all its components."""
    found = facts(connection, (since_s, until_s)) if until_s > since_s else []
    return _summed(found, dimensions.meters(connection), _watched(found, _idle(connection)))


def span(connection: Connection) -> tuple[int, int] | None:
    """Return the start of the first bucket and the end of the last one on record; None: no data.

    Once its seconds are forgotten, the start is known to the minute, later to the hour.
    """
    marks = read_marks(connection)
    forgotten_s = FOREVER_S
    starts: list[int] = []
    ends: list[int] = []
    for tier in TIERS:
        start_s = tier.table.c.start_s
        # A coarse bucket starts before its first second did: it counts only where finer ones are forgotten.
        # One at a time each end of the key is a look-up; both in one SELECT read the whole table (0.2 s).
        first = connection.scalar(select(func.min(start_s)).where(start_s < forgotten_s))
        last = connection.scalar(select(func.max(start_s)).where(start_s < forgotten_s))
        if first is not None and last is not None:
            starts.append(first)
            ends.append(last + tier.size_s)
        forgotten_s = min(forgotten_s, marks.kept_from(tier))
    return (min(starts), max(ends)) if starts else None


def _summed(found: list[Fact], meters: dict[int, Meter], seconds: float) -> Energy:
    return summed(((fact.energy_j, meters[fact.meter_id]) for fact in found), seconds)


def _idle(connection: Connection) -> int | None:
    consumer = schema.consumer.c
    return connection.scalar(
        select(consumer.id).where(consumer.kind == IDLE.kind, consumer.name == IDLE.name)
    )


def _watched(found: list[Fact], idle: int | None) -> float:
    """Seconds of the idle rows: each watched interval of a component has exactly one."""
    return _longest([fact for fact in found if fact.consumer_id == idle])


def _longest(found: list[Fact]) -> float:
    """Seconds of the component with most of them: the components of a machine run side by side."""
    seconds: dict[int, float] = defaultdict(float)
    for fact in found:
        seconds[fact.component_id] += fact.seconds
    return max(seconds.values(), default=0.0)
