"""The rows of any stretch of time, each joule once, and what they say together."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sqlalchemy import Connection, text

from greend.store.cover import cover
from greend.store.marks import read_marks
from greend.store.schema import TIERS
from greend.types import Meter, Quality

# Pieces come as one JSON argument: one statement a tier, however many buckets are asked for.
# CROSS JOIN is SQLite's word for "in this order": each piece is a range of the table's own key. LIMIT -1
# keeps it from taking the JSON apart again for every row: 70 ms instead of 95 for a year by the day.
_SUM = """
SELECT piece.segment, fact.component_id, fact.consumer_id, fact.meter_id,
       sum(fact.energy_j), sum(fact.seconds)
FROM (
    SELECT json_extract(value, '$[0]') AS low, json_extract(value, '$[1]') AS high,
           json_extract(value, '$[2]') AS segment
    FROM json_each(:pieces) LIMIT -1
) AS piece CROSS JOIN {table} AS fact
WHERE fact.start_s >= piece.low AND fact.start_s < piece.high
{only} GROUP BY 1, 2, 3, 4
"""
_ONLY = "AND fact.consumer_id IN (SELECT value FROM json_each(:consumers))"


@dataclass(frozen=True, slots=True)
class Fact:
    """What one consumer used of one component by one meter in one segment: joules and seconds."""

    segment: int
    component_id: int
    consumer_id: int
    meter_id: int
    energy_j: float
    seconds: float


def facts(connection: Connection, edges: Sequence[int], consumers: Iterable[int] | None = None) -> list[Fact]:
    """Return the sums between each two consecutive edges (seconds since 1970, ascending).

    `segment` of a fact is the index of the edge at its start. `consumers` limits the answer to these
    numbers. A fact may come in several parts, one for each tier that was asked.
    """
    marks = read_marks(connection)
    pieces: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for segment, (start_s, end_s) in enumerate(pairwise(edges)):
        for tier, low, high in cover(start_s, end_s, marks):
            pieces[tier.name].append((low, high, segment))
    arguments = {} if consumers is None else {"consumers": json.dumps(sorted(consumers))}
    found: list[Fact] = []
    for tier in TIERS:
        if tier.name in pieces:
            statement = _SUM.format(table=tier.table.name, only="" if consumers is None else _ONLY)
            rows = connection.execute(text(statement), {"pieces": json.dumps(pieces[tier.name]), **arguments})
            found += (Fact(*row) for row in rows)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """An amount of energy and how it is known."""

    energy_j: float | None
    """Joules; None: nothing was recorded (never 0 for what is not known)."""
    seconds: float
    """How long it was looked at; a gap in the record makes it less than the time that passed."""
    quality: Quality
    """The worst among the parts."""
    error: float | None
    """Relative error at 95 %, weighted by energy: the parts may all be wrong the same way."""
    source: str
    """Words for people, the source of most joules first: `RAPL package, CPU time × family table`."""


NOTHING = Energy(energy_j=None, seconds=0.0, quality=Quality.MISSING, error=None, source="")

_ORDER = list(Quality)


def summed(parts: Iterable[tuple[float, Meter]], seconds: float) -> Energy:
    """Return what parts of (joules, meter) amount to together, over `seconds` of looking."""
    by_meter: dict[Meter, float] = defaultdict(float)
    for energy_j, meter in parts:
        by_meter[meter] += energy_j
    if not by_meter:
        return NOTHING
    weight = sum(abs(energy_j) for energy_j in by_meter.values())
    if weight > 0:
        error = sum(abs(energy_j) * meter.error for meter, energy_j in by_meter.items()) / weight
    else:
        error = max(meter.error for meter in by_meter)
    ranked = sorted(by_meter, key=lambda meter: (-abs(by_meter[meter]), meter.source))
    return Energy(
        energy_j=sum(by_meter.values()),
        seconds=seconds,
        quality=max((meter.quality for meter in by_meter), key=_ORDER.index),
        error=error,
        source=", ".join(dict.fromkeys(meter.source for meter in ranked)),
    )
