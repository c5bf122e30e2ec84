"""The raw counters: where they stood, and what they grew by."""

from __future__ import annotations

from sqlalchemy import Connection, select

from greend.clock import NS
from greend.counters import Position
from greend.store import schema
from greend.types import CounterKey, Interval, IntervalFlag


def positions(connection: Connection, boot_id: str) -> dict[CounterKey, Position]:
    """Return where each counter stood when it was last read in this boot; of another one, nothing."""
    counter, position = schema.counter, schema.position
    rows = connection.execute(
        select(counter.c.source, counter.c.device, counter.c.counter, position)
        .join_from(position, counter, position.c.counter_id == counter.c.id)
        .where(position.c.boot_id == boot_id)
    )
    return {CounterKey(row.source, row.device, row.counter): Position(row.value, row.mono_ns) for row in rows}


def increases(connection: Connection, since_s: int, until_s: int) -> list[Interval]:
    """Return what every counter grew by in [since_s, until_s), oldest first, to price it again.

    The intervals are labelled with the wall clock, in nanoseconds since 1970; they are kept as long
    as the seconds are.
    """
    counter, increase = schema.counter, schema.increase
    rows = connection.execute(
        select(counter.c.source, counter.c.device, counter.c.counter, counter.c.unit, increase)
        .join_from(increase, counter, increase.c.counter_id == counter.c.id)
        .where(increase.c.start_ns >= since_s * NS, increase.c.start_ns < until_s * NS)
        .order_by(increase.c.start_ns, increase.c.counter_id)
    )
    return [
        Interval(
            key=CounterKey(row.source, row.device, row.counter),
            unit=row.unit,
            amount=row.amount,
            start_ns=row.start_ns,
            end_ns=row.start_ns + round(row.seconds * NS),
            flags=IntervalFlag(row.flags),
        )
        for row in rows
    ]
