"""The tables. Time is UTC; energy is joules; every fact belongs to a component, a consumer and a meter."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import (
    REAL,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

component = Table(
    "component",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("device", Text, nullable=False),
    UniqueConstraint("kind", "device", name="component_once"),
)

consumer = Table(
    "consumer",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    UniqueConstraint("kind", "name", name="consumer_once"),
)

meter = Table(
    "meter",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("quality", Text, nullable=False),
    Column("error", REAL, nullable=False),
    # `table` is a word of SQL; people ask this file by hand.
    Column("coefficients", Text, nullable=False),
    UniqueConstraint("name", "source", "quality", "error", "coefficients", name="meter_once"),
)

counter = Table(
    "counter",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("source", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("counter", Text, nullable=False),
    Column("unit", Text, nullable=False),
    UniqueConstraint("source", "device", "counter", name="counter_once"),
)


def _facts(name: str) -> Table:
    """Joules by start of bucket; the key is the row (WITHOUT ROWID), 19 bytes instead of 38 with an index."""
    return Table(
        name,
        metadata,
        Column("start_s", Integer, primary_key=True),
        Column("component_id", Integer, ForeignKey("component.id"), primary_key=True),
        Column("consumer_id", Integer, ForeignKey("consumer.id"), primary_key=True),
        Column("meter_id", Integer, ForeignKey("meter.id"), primary_key=True),
        Column("energy_j", REAL, nullable=False),
        Column("seconds", REAL, nullable=False),
        sqlite_with_rowid=False,
    )


energy_second = _facts("energy_second")
energy_minute = _facts("energy_minute")
energy_hour = _facts("energy_hour")
energy_day = _facts("energy_day")


@dataclass(frozen=True, slots=True)
class Tier:
    """One resolution of the ledger: its name, the length of a bucket in seconds, its table."""

    name: str
    size_s: int
    table: Table


SECOND = Tier("second", 1, energy_second)
MINUTE = Tier("minute", 60, energy_minute)
HOUR = Tier("hour", 3600, energy_hour)
DAY = Tier("day", 86400, energy_day)
TIERS = (SECOND, MINUTE, HOUR, DAY)
"""Finest first; each is summed from the one before it."""

rollup = Table(
    "rollup",
    metadata,
    Column("tier", Text, primary_key=True),
    Column("done_until_s", Integer, nullable=False),
    Column("kept_from_s", Integer, nullable=False),
    sqlite_with_rowid=False,
)

increase = Table(
    "increase",
    metadata,
    Column("start_ns", Integer, primary_key=True),
    Column("counter_id", Integer, ForeignKey("counter.id"), primary_key=True),
    Column("seconds", REAL, nullable=False),
    Column("amount", REAL, nullable=False),
    Column("flags", Integer, nullable=False),
    sqlite_with_rowid=False,
)

position = Table(
    "position",
    metadata,
    Column("counter_id", Integer, ForeignKey("counter.id"), primary_key=True),
    Column("value", REAL, nullable=False),
    Column("mono_ns", Integer, nullable=False),
    Column("boot_id", Text, nullable=False),
)

job = Table(
    "job",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("command", Text, nullable=False),
    Column("signature", Text, nullable=False),
    Column("uid", Integer, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_wall_ns", Integer, nullable=False),
    Column("ended_wall_ns", Integer),
    Column("exit_code", Integer),
    Column("by_hand", Boolean, nullable=False),
    Column("steps_total", Integer),
    Column("steps_done", Integer, nullable=False),
    Column("costs", Text, nullable=False),
    Column("tail_j", REAL),
    Column("report", Text, nullable=False),
    Column("limits", Text, nullable=False, server_default="{}"),
    Column("carbon_g", REAL),
    Column("cpu_s", REAL),
    Column("process", Text, nullable=False, server_default=""),
    Index("job_by_start", "started_wall_ns"),
    Index("job_by_signature", "signature", "started_wall_ns"),
)

decision = Table(
    "decision",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", Text, ForeignKey("job.id"), nullable=False),
    Column("at_wall_ns", Integer, nullable=False),
    Column("at_step", Integer, nullable=False),
    Column("level", Integer, nullable=False),
    Column("previous", Integer),
    Column("reason", Text, nullable=False),
    Column("feasible", Boolean, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("pace", REAL, nullable=False, server_default="1"),
    Column("power_w", REAL),
    Column("burst_j", REAL),
    Column("action", Text, nullable=False, server_default="run"),
    # `by` is a word of SQL.
    Column("bound_by", Text, nullable=False, server_default=""),
    Column("bounds", Text, nullable=False, server_default="[]"),
    Column("advised", Boolean, nullable=False, server_default="0"),
    Index("decision_by_job", "job_id", "at_wall_ns"),
)

level_profile = Table(
    "level_profile",
    metadata,
    Column("signature", Text, primary_key=True),
    Column("device", Text, primary_key=True),
    Column("costs", Text, primary_key=True),
    Column("remembered", Text, nullable=False),
    sqlite_with_rowid=False,
)

period_budget = Table(
    "period_budget",
    metadata,
    Column("period", Text, primary_key=True),
    Column("limits", Text, nullable=False),
    sqlite_with_rowid=False,
)

policy_rule = Table(
    "policy_rule",
    metadata,
    Column("name", Text, primary_key=True),
    Column("body", Text, nullable=False),
    sqlite_with_rowid=False,
)

lease = Table(
    "lease",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey("job.id"), nullable=False),
    Column("level", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("uid", Integer, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("since_wall_ns", Integer, nullable=False),
    Column("until_mono_ns", Integer, nullable=False),
    sqlite_with_rowid=False,
)
