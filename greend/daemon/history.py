"""The store as the daemon's parts ask it: a small question each, and one transaction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from greend.store import budgets, jobs, leases, profiles, queries, rules
from greend.store.cover import FOREVER_S
from greend.store.engine import Store
from greend.store.profiles import ProfileKey, Remembered
from greend.types import Job, Lease, Limits


@dataclass(frozen=True, slots=True)
class History:
    """What earlier runs and daemons have left, and what is kept for later ones. Raises StoreError."""

    store: Store

    def runs(self, signature: str) -> Sequence[Job]:
        """Return the runs of that signature that ended well, newest first."""
        with self.store.read() as connection:
            return jobs.finished(connection, signature)

    def learned(self, key: ProfileKey) -> Remembered | None:
        """Return what the levels cost when they were last run."""
        with self.store.read() as connection:
            return profiles.remembered(connection, key)

    def spent_since(self, start_s: int) -> float:
        """Return the joules of all jobs on record since a moment (seconds since 1970)."""
        with self.store.read() as connection:
            rows = queries.energy_by_consumer(connection, start_s, FOREVER_S)
        return math.fsum(row.energy_j or 0.0 for row in rows if row.consumer.kind == "job")

    def leases(self) -> list[Lease]:
        """Return the holds with an end of their own that were not dropped."""
        with self.store.read() as connection:
            return leases.leases(connection)

    def keep_lease(self, lease: Lease) -> None:
        """Keep a hold."""
        with self.store.write() as connection:
            leases.save(connection, lease)

    def forget_leases(self, lease_ids: list[str]) -> None:
        """Forget holds."""
        if lease_ids:
            with self.store.write() as connection:
                leases.drop(connection, lease_ids)

    def periods(self) -> dict[str, Limits]:
        """Return the limits of each period that has any."""
        with self.store.read() as connection:
            return budgets.periods(connection)

    def keep_period(self, period: str, limits: Limits | None) -> None:
        """Keep the limits of a period, or forget them."""
        with self.store.write() as connection:
            budgets.save(connection, period, limits)

    def rules(self) -> dict[str, dict[str, Any]]:
        """Return the rules that were set by command."""
        with self.store.read() as connection:
            return rules.rules(connection)

    def keep_rule(self, name: str, body: Mapping[str, Any] | None) -> None:
        """Keep a rule, or forget it."""
        with self.store.write() as connection:
            rules.save_rule(connection, name, body)
