"""`Batch`: what the daemon learned since the last flush, and how it is written."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field

from sqlalchemy import Connection, Table
from sqlalchemy.dialects.sqlite import Insert, insert

from greend.clock import NS
from greend.counters import Position
from greend.store import dimensions, documents, profiles, schema
from greend.store.marks import read_marks
from greend.store.profiles import ProfileKey, Remembered
from greend.store.schema import TIERS
from greend.types import IDLE, Component, CounterKey, Decision, Interval, Job, Meter, Share


@dataclass(slots=True)
class Batch:
    """What is to be written in one transaction; wall clock in nanoseconds since 1970."""

    shares: list[tuple[int, int, Share]] = field(default_factory=list)
    """(start_wall_ns, end_wall_ns, share); all shares of an interval and component in one batch."""
    increases: list[tuple[int, Interval]] = field(default_factory=list)
    """(start_wall_ns, interval): the raw counter, so that history can be priced again."""
    positions: dict[CounterKey, Position] = field(default_factory=dict)
    """Where the counters stood when they were last read, so that a restart loses no joules."""
    boot_id: str = ""
    """The boot of the positions: CLOCK_BOOTTIME and most counters begin anew with each."""
    decisions: list[tuple[str, Decision]] = field(default_factory=list)
    """(job id, decision); the job is in this batch or was in an earlier one."""
    jobs: dict[str, Job] = field(default_factory=dict)
    """By id; a job that is known is replaced."""
    profiles: dict[ProfileKey, Remembered] = field(default_factory=dict)
    """What jobs' levels cost, for the next run of the same command; one that is known is replaced."""

    def __bool__(self) -> bool:
        return any((self.shares, self.increases, self.positions, self.decisions, self.jobs, self.profiles))

    def then(self, later: Batch) -> Batch:
        """Return one batch of this and a later one: what could not be written waits with what came since."""
        return Batch(
            shares=self.shares + later.shares,
            increases=self.increases + later.increases,
            positions=self.positions | later.positions,
            boot_id=later.boot_id or self.boot_id,
            decisions=self.decisions + later.decisions,
            jobs=self.jobs | later.jobs,
            profiles=self.profiles | later.profiles,
        )


def write(connection: Connection, batch: Batch) -> None:
    """Write a batch inside the transaction of `connection`; all of it or, when this raises, nothing.

    Raises sqlalchemy's errors, which `Store.write` turns into StoreError and its kin, and ValueError
    for positions without a boot.
    """
    if batch.positions and not batch.boot_id:
        raise ValueError("positions without a boot_id could never be restored")
    _write_jobs(connection, batch.jobs)
    _write_decisions(connection, batch.decisions)
    profiles.save(connection, batch.profiles)
    _write_shares(connection, batch.shares)
    _write_increases(connection, batch.increases)
    _write_positions(connection, batch.positions, batch.boot_id)


_PUT_JOB = insert(schema.job)
_PUT_JOB = _PUT_JOB.on_conflict_do_update(
    index_elements=["id"],
    set_={c.name: _PUT_JOB.excluded[c.name] for c in schema.job.c if c.name != "id"},
)


def _write_jobs(connection: Connection, jobs: dict[str, Job]) -> None:
    rows = []
    for job in jobs.values():
        row = {name: getattr(job, name) for name in Job.__dataclass_fields__}
        for name in ("command", "costs", "report"):
            row[name] = json.dumps(row[name])
        row["limits"] = documents.limits_text(job.limits)
        rows.append(row)
    if rows:
        connection.execute(_PUT_JOB, rows)


def _write_decisions(connection: Connection, decisions: list[tuple[str, Decision]]) -> None:
    rows = [
        {
            "job_id": job_id,
            "at_wall_ns": decision.at_wall_ns,
            "at_step": decision.at_step,
            "level": decision.level,
            "previous": decision.previous,
            "reason": decision.reason,
            "feasible": decision.feasible,
            "inputs": json.dumps(decision.inputs),
            "pace": decision.pace,
            "power_w": decision.power_w,
            "burst_j": decision.burst_j,
            "action": decision.action.value,
            "bound_by": decision.by,
            "bounds": documents.bounds_text(decision.bounds),
            "advised": decision.advised,
        }
        for job_id, decision in decisions
    ]
    if rows:
        connection.execute(insert(schema.decision), rows)


def _adding(table: Table) -> Insert:
    statement = insert(table)
    return statement.on_conflict_do_update(
        index_elements=["start_s", "component_id", "consumer_id", "meter_id"],
        set_={
            "energy_j": table.c.energy_j + statement.excluded.energy_j,
            "seconds": table.c.seconds + statement.excluded.seconds,
        },
    )


_ADD = {tier.name: _adding(tier.table) for tier in TIERS}


def _write_shares(connection: Connection, shares: list[tuple[int, int, Share]]) -> None:
    """Add shares to the second in which they start, and to every tier that has left that second behind."""
    if not shares:
        return
    marks = read_marks(connection)
    sums: dict[str, dict[tuple[int, int, int, int], list[float]]] = {
        t.name: defaultdict(_zero) for t in TIERS
    }
    for start_ns, end_ns, share in [*shares, *_idle_of_nothing(shares)]:
        start_s = start_ns // NS
        nouns = (
            dimensions.component_id(connection, share.component),
            dimensions.consumer_id(connection, share.consumer),
            dimensions.meter_id(connection, share.meter),
        )
        # Negative when the wall clock was stepped back in between.
        seconds = max(0, end_ns - start_ns) / NS
        for tier in TIERS:
            if marks.holds(tier, start_s):
                row = sums[tier.name][start_s // tier.size_s * tier.size_s, *nouns]
                row[0] += share.energy_j
                row[1] += seconds
    for tier in TIERS:
        if sums[tier.name]:
            connection.execute(
                _ADD[tier.name],
                [
                    {
                        "start_s": start_s,
                        "component_id": component,
                        "consumer_id": consumer,
                        "meter_id": meter,
                        "energy_j": energy_j,
                        "seconds": seconds,
                    }
                    for (start_s, component, consumer, meter), (energy_j, seconds) in sums[tier.name].items()
                ],
            )


def _zero() -> list[float]:
    return [0.0, 0.0]


def _idle_of_nothing(shares: list[tuple[int, int, Share]]) -> list[tuple[int, int, Share]]:
    """Return an idle share of 0 J for each interval of a component that has none.

    So the seconds of a component's idle rows are how long it was watched, and add up in every tier;
    those of its other consumers overlap.
    """
    watched: dict[tuple[int, Component], tuple[int, Meter]] = {}
    idle: set[tuple[int, Component]] = set()
    for start_ns, end_ns, share in shares:
        watched.setdefault((start_ns, share.component), (end_ns, share.meter))
        if share.consumer == IDLE:
            idle.add((start_ns, share.component))
    return [
        (start_ns, end_ns, Share(component, IDLE, 0.0, meter))
        for (start_ns, component), (end_ns, meter) in watched.items()
        if (start_ns, component) not in idle
    ]


_ADD_INCREASE = insert(schema.increase)
_ADD_INCREASE = _ADD_INCREASE.on_conflict_do_update(
    index_elements=["start_ns", "counter_id"],
    set_={
        "amount": schema.increase.c.amount + _ADD_INCREASE.excluded.amount,
        "seconds": schema.increase.c.seconds + _ADD_INCREASE.excluded.seconds,
        "flags": schema.increase.c.flags.op("|")(_ADD_INCREASE.excluded.flags),
    },
)


def _write_increases(connection: Connection, increases: list[tuple[int, Interval]]) -> None:
    rows = [
        {
            "start_ns": start_ns,
            "counter_id": dimensions.counter_id(connection, interval.key, interval.unit),
            "seconds": interval.seconds,
            "amount": interval.amount,
            "flags": interval.flags.value,
        }
        for start_ns, interval in increases
    ]
    if rows:
        connection.execute(_ADD_INCREASE, rows)


_PUT_POSITION = insert(schema.position)
_PUT_POSITION = _PUT_POSITION.on_conflict_do_update(
    index_elements=["counter_id"],
    set_={c: _PUT_POSITION.excluded[c] for c in ("value", "mono_ns", "boot_id")},
)


def _write_positions(connection: Connection, positions: dict[CounterKey, Position], boot_id: str) -> None:
    rows = [
        {
            "counter_id": dimensions.counter_id(connection, key),
            "value": position.value,
            "mono_ns": position.mono_ns,
            "boot_id": boot_id,
        }
        for key, position in positions.items()
    ]
    if rows:
        connection.execute(_PUT_POSITION, rows)
