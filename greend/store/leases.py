"""Leases with an end of their own, which outlive the connection and the daemon that granted them."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection, delete, insert, select

from greend.store import schema
from greend.types import Lease


def leases(connection: Connection) -> list[Lease]:
    """Return all leases that were granted and not dropped, oldest first."""
    rows = connection.execute(select(schema.lease).order_by(schema.lease.c.since_wall_ns, schema.lease.c.id))
    return [Lease(**row._mapping) for row in rows]


def save(connection: Connection, lease: Lease) -> None:
    """Keep a lease that has an end."""
    connection.execute(insert(schema.lease), asdict(lease))


def drop(connection: Connection, lease_ids: list[str]) -> None:
    """Forget leases; one that is not there is forgotten already."""
    connection.execute(delete(schema.lease).where(schema.lease.c.id.in_(lease_ids)))
