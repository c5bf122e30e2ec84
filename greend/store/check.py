"""Does the ledger add up? What `greend db check` asks."""

from __future__ import annotations

from itertools import pairwise

from sqlalchemy import Connection, text

from greend.store.marks import Marks, read_marks
from greend.store.schema import TIERS, Tier

TOLERANCE = 1e-9
"""Relative: sums of doubles in another order differ by 1e-12 over a day of rows."""

_ORPHANS = """
SELECT consumer.name FROM consumer LEFT JOIN job ON job.id = consumer.name
WHERE consumer.kind = 'job' AND job.id IS NULL
"""

_DISAGREE = """
SELECT bucket, component_id, consumer_id, meter_id, sum(fine_j), sum(coarse_j) FROM (
    SELECT start_s - start_s % :size AS bucket, component_id, consumer_id, meter_id,
           energy_j AS fine_j, 0.0 AS coarse_j, seconds AS fine_s, 0.0 AS coarse_s
    FROM {finer} WHERE start_s >= :low AND start_s < :high
    UNION ALL
    SELECT start_s, component_id, consumer_id, meter_id, 0.0, energy_j, 0.0, seconds
    FROM {coarser} WHERE start_s >= :low AND start_s < :high
) GROUP BY 1, 2, 3, 4
HAVING abs(sum(fine_j) - sum(coarse_j)) > :tolerance * (sum(abs(fine_j)) + sum(abs(coarse_j)))
    OR abs(sum(fine_s) - sum(coarse_s)) > :tolerance * (sum(fine_s) + sum(coarse_s))
"""


def integrity(connection: Connection) -> list[str]:
    """Return what SQLite's own check finds wrong with the file; empty: it is whole."""
    found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
    return [line for line in found if line != "ok"]


def conservation(connection: Connection) -> list[str]:
    """Return every way in which the joules on record do not add up; empty: they do.

    A component's and a consumer's energy are sums over the same rows, so they agree by themselves;
    what can disagree is one tier with another, a row with its nouns, and a sign.
    """
    marks = read_marks(connection)
    found: list[str] = []
    for tier in TIERS:
        count, least = connection.execute(
            text(f"SELECT count(*), min(energy_j) FROM {tier.table.name} WHERE energy_j < 0 OR seconds < 0")
        ).one()
        if count:
            found.append(f"{tier.table.name}: {count} rows below zero, the least {least} J")
        found += _out_of_place(connection, marks, tier)
    for table, _, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        found.append(f"{table}: a row names a {parent} that does not exist")
    for name in connection.execute(text(_ORPHANS)).scalars():
        found.append(f"consumer: joules of job {name!r}, which is not among the jobs")
    for finer, coarser in pairwise(TIERS):
        found += _disagreements(connection, marks, finer, coarser)
    return found


def _out_of_place(connection: Connection, marks: Marks, tier: Tier) -> list[str]:
    """Find rows outside what the tier claims to hold: nobody would ever count them."""
    done = marks.done_until(tier)
    count = connection.execute(
        text(
            f"SELECT count(*) FROM {tier.table.name} "
            "WHERE start_s < :low OR start_s >= :high OR start_s % :size"
        ),
        {
            "low": marks.kept_from(tier),
            "high": (1 << 62) if done is None else done,
            "size": tier.size_s,
        },
    ).scalar_one()
    return [f"{tier.table.name}: {count} rows outside the time that it answers for"] if count else []


def _disagreements(connection: Connection, marks: Marks, finer: Tier, coarser: Tier) -> list[str]:
    done = marks.done_until(coarser) or 0
    rows = connection.execute(
        text(_DISAGREE.format(finer=finer.table.name, coarser=coarser.table.name)),
        {
            "size": coarser.size_s,
            "low": max(marks.kept_from(finer), marks.kept_from(coarser)),
            "high": done,
            "tolerance": TOLERANCE,
        },
    ).all()
    return [
        f"{coarser.table.name}: {coarse_j} J from {bucket} on (component {component}, consumer {consumer}, "
        f"meter {meter}), but its {finer.name}s add up to {fine_j} J"
        for bucket, component, consumer, meter, fine_j, coarse_j in rows
    ]
