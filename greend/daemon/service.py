"""What the daemon can be asked: the server's calls, free of HTTP."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace

from greend import __version__, wire
from greend.clock import Clock, Instant
from greend.daemon.control import check_limits
from greend.daemon.jobs import JobBook
from greend.daemon.live import LiveJob
from greend.daemon.periods import J_PER_KWH
from greend.daemon.sampler import Sampler
from greend.daemon.status import ComponentNow, JobNow, Status
from greend.daemon.terms import Terms
from greend.energy.uncertainty import combined_error
from greend.errors import NotFound, PermissionDenied
from greend.sources.processes import ProcessTree, uid_of
from greend.types import Job


@dataclass
class Service:
    """The daemon's parts as one thing to ask; safe to call from the server's threads."""

    clock: Clock
    sampler: Sampler
    jobs: JobBook
    mode: str
    pid: int
    period_s: float
    database: str
    started: Instant
    terms: Terms
    sources: dict[str, str]
    """Why a source is off, or an empty text, by name."""

    def status(self) -> Status:
        """Return how things are as of the last turn."""
        now = self.sampler.now
        energies = now.energies if now is not None else ()
        seconds = now.seconds if now is not None else 0.0
        return Status(
            version=__version__,
            host=socket.gethostname(),
            pid=self.pid,
            mode=self.mode,
            uptime_s=self.clock.now().seconds_since(self.started),
            period_s=self.period_s,
            database=self.database,
            sample_age_s=self.clock.now().seconds_since(now.at) if now is not None else None,
            power_w=now.power_w if now is not None else None,
            error=combined_error((e.energy_j, e.meter.error) for e in energies),
            components=[
                ComponentNow(
                    str(e.component),
                    e.component.kind,
                    e.energy_j / seconds,
                    e.meter.source,
                    e.meter.quality.value,
                    e.meter.error,
                )
                for e in energies
            ],
            jobs=[_job_now(live, self.terms.price_per_kwh()) for live in self.jobs.live()],
            sources=self.sources,
            problems={**(now.problems if now is not None else {}), **self.terms.problems()},
        )

    def register(self, request: wire.JobRequest, uid: int) -> Job:
        """Take a process as a job of the user who asks.

        Raises PermissionDenied, NotFound, ProtocolError for limits that make no sense, and Unenforceable.
        """
        check_limits(request.limits)
        self.terms.check(request.limits)
        owner = uid_of(request.pid)
        if owner is None:
            raise NotFound(f"register a job: process {request.pid} does not run")
        if uid not in (0, owner):
            raise PermissionDenied(
                f"register a job: process {request.pid} belongs to user {owner}, not to {uid}"
            )
        job = self.jobs.register(request, owner, ProcessTree(request.pid), self.clock.now())
        # Stored at once: a job that was acknowledged is known to the history, whatever happens next.
        self.flush()
        return job

    def attach(self, job_id: str, request: wire.AttachRequest, uid: int) -> None:
        """Note what a job's model can do."""
        self.jobs.attach(job_id, request, uid, self.clock.now())

    def flush(self) -> None:
        """Write to the database what is in memory."""
        self.sampler.flush()


def _job_now(live: LiveJob, price_per_kwh: float | None) -> JobNow:
    decision = live.state.decision
    now = JobNow(
        id=live.job.id,
        name=live.job.name,
        spent_j=live.spent_j,
        budget_j=live.job.budget_j,
        level=None,
        top=live.top if live.job.costs else None,
        steps_done=live.steps.done,
        steps_total=live.job.steps_total,
        limits=live.job.limits,
        spent_g=live.spent_g,
        spent_cost=live.spent_j / J_PER_KWH * price_per_kwh if price_per_kwh is not None else None,
        expected_j=live.expected_j(),
    )
    if decision is None:
        return now
    return replace(
        now,
        level=decision.level,
        pace=decision.pace,
        power_w=decision.power_w,
        action=decision.action.value,
        by=decision.by,
        advised=decision.advised,
    )
