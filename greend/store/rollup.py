"""Seconds become minutes, hours and days; what has been summed up may be forgotten."""

from __future__ import annotations

from itertools import pairwise

from sqlalchemy import Connection, delete, func, insert, select

from greend.clock import NS
from greend.store.marks import Marks, read_marks, save_marks
from greend.store.schema import HOUR, MINUTE, SECOND, TIERS, Tier, increase


def roll_up(connection: Connection, now_s: float) -> None:
    """Sum every complete bucket that has not been summed yet; days are days of UTC.

    `now_s` is the wall clock in seconds since 1970. The mark moves in the same transaction, so each
    bucket is summed exactly once; rows that come later are added to the sums as they are written.
    """
    marks = read_marks(connection)
    for finer, tier in pairwise(TIERS):
        done = marks.done.get(tier.name, 0)
        until = int(now_s) // tier.size_s * tier.size_s
        if until > done:
            _sum(connection, finer, tier, done, until)
            marks.done[tier.name] = until
    save_marks(connection, marks)


def _sum(connection: Connection, finer: Tier, tier: Tier, start_s: int, end_s: int) -> None:
    rows = finer.table.c
    bucket = (rows.start_s - rows.start_s % tier.size_s).label("bucket")
    nouns = (rows.component_id, rows.consumer_id, rows.meter_id)
    sums = (
        select(bucket, *nouns, func.sum(rows.energy_j), func.sum(rows.seconds))
        .where(rows.start_s >= start_s, rows.start_s < end_s)
        .group_by(bucket, *nouns)
    )
    # A plain INSERT: a bucket that is there already would be one summed twice, and must not pass.
    connection.execute(insert(tier.table).from_select([c.name for c in tier.table.c], sums))


def retain(
    connection: Connection,
    now_s: float,
    seconds_keep_s: float,
    minutes_keep_s: float,
    buckets: int = 21_600,
) -> int:
    """Forget rows of the fine tiers that are old enough and summed up; return how many went.

    The wall clock and both ages are in seconds. One call takes at most so many buckets of each tier
    (6 hours of seconds, 8 rows each: about 150 ms), so that a flush never waits for long: call it
    hourly, or again, each time in its own transaction, until it returns 0. Increases go with the seconds.
    """
    marks = read_marks(connection)
    gone = 0
    for tier, coarser, keep_s in ((SECOND, MINUTE, seconds_keep_s), (MINUTE, HOUR, minutes_keep_s)):
        # Whole buckets of the coarser tier, or an edge of it would be half kept.
        target = int(now_s - keep_s) // coarser.size_s * coarser.size_s
        if tier is not SECOND:
            # Never ahead of the seconds, which go a slice at a time: a row that comes late would be kept as
            # a second where there is no minute any more, and be counted there and in its hour.
            target = min(target, marks.kept_from(SECOND) // coarser.size_s * coarser.size_s)
        gone += _forget(
            connection, marks, tier, min(target, marks.done.get(coarser.name, 0)), coarser, buckets
        )
    save_marks(connection, marks)
    return gone


def _forget(
    connection: Connection, marks: Marks, tier: Tier, target_s: int, coarser: Tier, buckets: int
) -> int:
    oldest = connection.scalar(select(func.min(tier.table.c.start_s)))
    starts = [] if oldest is None else [oldest]
    if tier is SECOND:
        first = connection.scalar(select(func.min(increase.c.start_ns)))
        starts += [] if first is None else [first // NS]
    # Where nothing is stored there is nothing to go through bucket by bucket.
    start_s = min([*starts, target_s]) // coarser.size_s * coarser.size_s
    slice_s = max(coarser.size_s, buckets * tier.size_s // coarser.size_s * coarser.size_s)
    end_s = min(start_s + slice_s, target_s)
    gone = connection.execute(delete(tier.table).where(tier.table.c.start_s < end_s)).rowcount
    if tier is SECOND:
        gone += connection.execute(delete(increase).where(increase.c.start_ns < end_s * NS)).rowcount
    marks.kept[tier.name] = max(marks.kept_from(tier), end_s)
    return gone
