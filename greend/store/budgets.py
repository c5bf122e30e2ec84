"""What all jobs of the machine together may use in each day or month, as set by command."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from greend.store import documents, schema
from greend.types import Limits

_PUT = insert(schema.period_budget)
_PUT = _PUT.on_conflict_do_update(index_elements=["period"], set_={"limits": _PUT.excluded.limits})


def periods(connection: Connection) -> dict[str, Limits]:
    """Return the limits of each period (`day`, `month`) that has any."""
    rows = connection.execute(select(schema.period_budget))
    return {row.period: documents.limits_of(row.limits) for row in rows}


def save(connection: Connection, period: str, limits: Limits | None) -> None:
    """Set the limits of a period; None takes them away."""
    if limits is None:
        connection.execute(delete(schema.period_budget).where(schema.period_budget.c.period == period))
    else:
        connection.execute(_PUT, {"period": period, "limits": documents.limits_text(limits)})
