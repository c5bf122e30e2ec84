"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make every table."""
    _nouns()
    for name in ("energy_second", "energy_minute", "energy_hour", "energy_day"):
        op.create_table(
            name,
            sa.Column("start_s", sa.Integer, primary_key=True),
            sa.Column("component_id", sa.Integer, sa.ForeignKey("component.id"), primary_key=True),
            sa.Column("consumer_id", sa.Integer, sa.ForeignKey("consumer.id"), primary_key=True),
            sa.Column("meter_id", sa.Integer, sa.ForeignKey("meter.id"), primary_key=True),
            sa.Column("energy_j", sa.REAL, nullable=False),
            sa.Column("seconds", sa.REAL, nullable=False),
            sqlite_with_rowid=False,
        )
    op.create_table(
        "rollup",
        sa.Column("tier", sa.Text, primary_key=True),
        sa.Column("done_until_s", sa.Integer, nullable=False),
        sa.Column("kept_from_s", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    _counters()
    _jobs()


def _nouns() -> None:
    op.create_table(
        "component",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.UniqueConstraint("kind", "device", name="component_once"),
    )
    op.create_table(
        "consumer",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.UniqueConstraint("kind", "name", name="consumer_once"),
    )
    op.create_table(
        "meter",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("quality", sa.Text, nullable=False),
        sa.Column("error", sa.REAL, nullable=False),
        sa.Column("coefficients", sa.Text, nullable=False),
        sa.UniqueConstraint("name", "source", "quality", "error", "coefficients", name="meter_once"),
    )
    op.create_table(
        "counter",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("counter", sa.Text, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.UniqueConstraint("source", "device", "counter", name="counter_once"),
    )


def _counters() -> None:
    op.create_table(
        "increase",
        sa.Column("start_ns", sa.Integer, primary_key=True),
        sa.Column("counter_id", sa.Integer, sa.ForeignKey("counter.id"), primary_key=True),
        sa.Column("seconds", sa.REAL, nullable=False),
        sa.Column("amount", sa.REAL, nullable=False),
        sa.Column("flags", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "position",
        sa.Column("counter_id", sa.Integer, sa.ForeignKey("counter.id"), primary_key=True),
        sa.Column("value", sa.REAL, nullable=False),
        sa.Column("mono_ns", sa.Integer, nullable=False),
        sa.Column("boot_id", sa.Text, nullable=False),
    )


def _jobs() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("command", sa.Text, nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
        sa.Column("uid", sa.Integer, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("started_wall_ns", sa.Integer, nullable=False),
        sa.Column("ended_wall_ns", sa.Integer),
        sa.Column("exit_code", sa.Integer),
        sa.Column("budget_j", sa.REAL),
        sa.Column("by_hand", sa.Boolean, nullable=False),
        sa.Column("steps_total", sa.Integer),
        sa.Column("steps_done", sa.Integer, nullable=False),
        sa.Column("costs", sa.Text, nullable=False),
        sa.Column("tail_j", sa.REAL),
        sa.Column("report", sa.Text, nullable=False),
    )
    op.create_index("job_by_start", "job", ["started_wall_ns"])
    op.create_index("job_by_signature", "job", ["signature", "started_wall_ns"])
    op.create_table(
        "decision",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("job_id", sa.Text, sa.ForeignKey("job.id"), nullable=False),
        sa.Column("at_wall_ns", sa.Integer, nullable=False),
        sa.Column("at_step", sa.Integer, nullable=False),
        sa.Column("level", sa.Integer, nullable=False),
        sa.Column("previous", sa.Integer),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("feasible", sa.Boolean, nullable=False),
        sa.Column("inputs", sa.Text, nullable=False),
    )
    op.create_index("decision_by_job", "decision", ["job_id", "at_wall_ns"])
