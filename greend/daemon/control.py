"""What people may change while the daemon runs: limits, holds, budgets of day and month, policy rules."""

from __future__ import annotations

import math
import os
import pwd
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from greend import wire
from greend.clock import Clock
from greend.daemon.jobs import JobBook
from greend.daemon.leases import Leases, until_wall_ns
from greend.daemon.periods import J_PER_KWH, PERIODS
from greend.daemon.terms import Terms
from greend.errors import PermissionDenied, ProtocolError
from greend.types import Lease, Limits

ON_INFEASIBLE = ("run_level_0", "stop_at_checkpoint", "pause")
ORDERS = ("rising", "mixed")


@dataclass
class Control:
    """The changes that can be asked for, free of HTTP; safe to call from the server's threads."""

    clock: Clock
    jobs: JobBook
    leases: Leases
    terms: Terms
    flush: Callable[[], None]

    def limit(self, job_id: str, request: wire.LimitsRequest, uid: int) -> None:
        """Let a job use so much from now on.

        Raises NotFound, PermissionDenied, ProtocolError for amounts that make no sense, and Unenforceable.
        """
        check_limits(request.limits)
        self.jobs.own(job_id, uid)
        self.terms.check(request.limits)
        self.jobs.limit(job_id, request.limits, uid)
        # Stored at once: what was acknowledged outlives the daemon.
        self.flush()

    def may_hold(self, job_id: str, request: wire.HoldRequest, uid: int) -> None:
        """Raise NotFound, PermissionDenied or ProtocolError for a hold that cannot be granted."""
        live = self.jobs.own(job_id, uid)
        if not request.reason.strip():
            raise ProtocolError(f"hold {job_id}: say why, for those who wonder later")
        if request.level < 0 or (live.job.costs and request.level > live.top):
            levels = f"0 to {live.top}" if live.job.costs else "0 and up"
            raise ProtocolError(f"hold {job_id} at level {request.level}: its levels are {levels}")
        if request.for_s is not None and not (request.for_s > 0 and math.isfinite(request.for_s)):
            raise ProtocolError(f"hold {job_id} for {request.for_s:g} s: it must be more than zero")

    def hold(self, job_id: str, request: wire.HoldRequest, uid: int, pid: int) -> Lease:
        """Keep a job at a level or below; raises as `may_hold` does, and StoreError."""
        self.may_hold(job_id, request, uid)
        name = request.name or _user(uid)
        now = self.clock.now()
        lease = self.leases.grant(
            job_id, request.level, request.reason.strip(), name, uid, pid, now, request.for_s
        )
        self.jobs.wake()
        return lease

    def release(self, lease_id: str, uid: int) -> None:
        """End a hold; raises NotFound, PermissionDenied."""
        self.leases.release(lease_id, uid, lambda job_id: self.jobs.get(job_id).job.uid)
        self.jobs.wake()

    def dropped(self, lease: Lease) -> None:
        """End a hold whose connection has ended, unless it is over already."""
        if self.leases.held(lease.id):
            self.leases.release(lease.id)
            self.jobs.wake()

    def holds(self) -> list[wire.HoldNow]:
        """Return the holds in force."""
        now = self.clock.now()
        return [
            wire.HoldNow(
                hold=lease.id,
                job=lease.job_id,
                level=lease.level,
                reason=lease.reason,
                name=lease.name,
                uid=lease.uid,
                pid=lease.pid,
                since_wall_ns=lease.since_wall_ns,
                until_wall_ns=until_wall_ns(lease, now),
            )
            for lease in self.leases.all(now)
        ]

    def set_period(self, request: wire.PeriodRequest, uid: int) -> None:
        """Set what all jobs may use in each day or month; raises PermissionDenied, ProtocolError."""
        _for_the_machine(uid, f"set the budget of the {request.period}")
        if request.period not in PERIODS:
            raise ProtocolError(f"a budget of the {request.period!r}: there are {' and '.join(PERIODS)}")
        limits = Limits(energy_j=request.energy_j, carbon_g=request.carbon_g, cost=request.cost)
        check_limits(limits)
        self.terms.set_period(request.period, limits if limits != Limits() else None)
        self.jobs.wake()

    def periods(self) -> list[wire.PeriodNow]:
        """Return the budgets of day and month with what is spent of them."""
        now, price = self.clock.now(), self.terms.price_per_kwh()
        intensity = self.terms.intensity(now)
        found = []
        for period, limits in sorted(self.terms.periods.limits.items()):
            spending = self.terms.periods.spending(period, now)
            found.append(
                wire.PeriodNow(
                    period=period,
                    energy_j=limits.energy_j,
                    carbon_g=limits.carbon_g,
                    cost=limits.cost,
                    spent_j=spending.spent_j,
                    spent_g=spending.spent_g if intensity is not None else None,
                    spent_cost=spending.spent_j / J_PER_KWH * price if price is not None else None,
                    start_wall_ns=spending.start_wall_ns,
                    end_wall_ns=spending.end_wall_ns,
                )
            )
        return found

    def set_rule(self, request: wire.RuleRequest, uid: int) -> None:
        """Set a policy rule, or take it away; raises PermissionDenied, NotFound, ConfigError."""
        _for_the_machine(uid, f"set the policy {request.name}")
        self.terms.rules.set(request.name, request.rule)
        self.jobs.wake()

    def rules(self) -> list[wire.RuleNow]:
        """Return all policy rules."""
        return self.terms.rules.all()


def check_limits(limits: Limits) -> None:
    """Raise ProtocolError for an amount that is no amount, or a word that is none of those known."""
    amounts: Mapping[str, float | None] = {
        "energy_j": limits.energy_j,
        "carbon_g": limits.carbon_g,
        "cost": limits.cost,
        "power_w": limits.power_w,
        "window_s": limits.window_s,
        "deadline_wall_ns": limits.deadline_wall_ns,
    }
    for name, value in amounts.items():
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ProtocolError(f"limit a job: {name} = {value:g}: it must be more than zero")
    if limits.hard and limits.power_w is None:
        raise ProtocolError("limit a job: a hard limit is one of power; name it, as --power 40W")
    for name, word, known in (
        ("on_infeasible", limits.on_infeasible, ON_INFEASIBLE),
        ("order", limits.order, ORDERS),
    ):
        if word not in known:
            raise ProtocolError(f"limit a job: {name} = {word!r}: there are {', '.join(known)}")


def _for_the_machine(uid: int, what: str) -> None:
    if uid not in (0, os.geteuid()):
        raise PermissionDenied(
            f"{what}: it holds for all jobs of the machine, so that only root may; ask with sudo"
        )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
