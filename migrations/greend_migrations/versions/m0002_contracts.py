"""Budgets become limits of every kind; decisions keep all bounds; profiles, rules, leases are remembered."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Keep what is there: a budget in joules becomes `{"energy_j": ...}`, a decision ran at full pace."""
    _jobs()
    _decisions()
    op.create_table(
        "level_profile",
        sa.Column("signature", sa.Text, primary_key=True),
        sa.Column("device", sa.Text, primary_key=True),
        sa.Column("costs", sa.Text, primary_key=True),
        sa.Column("remembered", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    for name, key, body in (
        ("period_budget", "period", "limits"),
        ("policy_rule", "name", "body"),
    ):
        op.create_table(
            name,
            sa.Column(key, sa.Text, primary_key=True),
            sa.Column(body, sa.Text, nullable=False),
            sqlite_with_rowid=False,
        )
    op.create_table(
        "lease",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("job_id", sa.Text, sa.ForeignKey("job.id"), nullable=False),
        sa.Column("level", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("uid", sa.Integer, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("since_wall_ns", sa.Integer, nullable=False),
        sa.Column("until_mono_ns", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )


def _jobs() -> None:
    op.add_column("job", sa.Column("limits", sa.Text, nullable=False, server_default="{}"))
    op.add_column("job", sa.Column("carbon_g", sa.REAL))
    op.add_column("job", sa.Column("cpu_s", sa.REAL))
    op.add_column("job", sa.Column("process", sa.Text, nullable=False, server_default=""))
    op.execute("UPDATE job SET limits = json_object('energy_j', budget_j) WHERE budget_j IS NOT NULL")
    op.drop_column("job", "budget_j")


def _decisions() -> None:
    op.add_column("decision", sa.Column("pace", sa.REAL, nullable=False, server_default="1"))
    op.add_column("decision", sa.Column("power_w", sa.REAL))
    op.add_column("decision", sa.Column("burst_j", sa.REAL))
    op.add_column("decision", sa.Column("action", sa.Text, nullable=False, server_default="run"))
    op.add_column("decision", sa.Column("bound_by", sa.Text, nullable=False, server_default=""))
    op.add_column("decision", sa.Column("bounds", sa.Text, nullable=False, server_default="[]"))
    op.add_column("decision", sa.Column("advised", sa.Boolean, nullable=False, server_default="0"))
