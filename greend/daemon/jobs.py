"""The jobs that run now: what the daemon knows of each between two ticks."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from greend import wire
from greend.clock import NS, Instant
from greend.daemon.live import LiveJob, Steps
from greend.errors import NotFound, PermissionDenied
from greend.governor.policy import State
from greend.governor.profile import LevelProfile
from greend.sources.processes import ProcessTree
from greend.store.profiles import ProfileKey, Remembered
from greend.types import Decision, Job, Limits


class Past(Protocol):
    """What earlier runs have left."""

    def runs(self, signature: str) -> Sequence[Job]:
        """Return the runs of that signature that ended well, newest first."""
        ...

    def learned(self, key: ProfileKey) -> Remembered | None:
        """Return what the levels cost when they were last run."""
        ...


class JobBook:
    """All live jobs, shared by the sampler's thread and the server's; every method takes the lock."""

    def __init__(
        self,
        past: Past,
        wake: Callable[[], None],
        default_budget_j: float | None = None,
        device: str = "",
        boot_id: str = "",
    ) -> None:
        self.lock = threading.RLock()
        self._live: dict[str, LiveJob] = {}
        self._past = past
        self.wake = wake
        self._default = Limits(energy_j=default_budget_j)
        self._device = device
        self._boot_id = boot_id

    def register(self, request: wire.JobRequest, uid: int, tree: ProcessTree, now: Instant) -> Job:
        """Take a process tree as a job; a process that belongs to a live job already is that job."""
        with self.lock:
            for live in self._live.values():
                if request.pid in live.tree.pids():
                    return live.job
            signature = signature_of(request.command, uid)
            limits = request.limits
            if limits.energy_j is None and request.budget_j is not None:
                limits = replace(limits, energy_j=request.budget_j)
            by_hand = limits != Limits()
            job = Job(
                id=f"j-{secrets.token_hex(3)}",
                name=request.name or _name_of(request.command),
                command=tuple(request.command),
                signature=signature,
                uid=uid,
                pid=request.pid,
                started_wall_ns=now.wall_ns,
                limits=limits if by_hand else self._default,
                by_hand=by_hand,
                steps_total=request.steps,
                process=self.process_of(tree),
            )
            # All that a new process ever used is the job's; of an older one, what it uses from here on.
            cpu_s = 0.0 if tree.started_after(now.after(-NEW_PROCESS_S)) else tree.cpu_s()
            live = self._taken(LiveJob(job, tree, started=now, cpu_s=cpu_s))
            live.steps_known_by = "--steps" if request.steps is not None else ""
            return job

    def adopt(
        self, job: Job, tree: ProcessTree, spent_j: float, decision: Decision | None, now: Instant
    ) -> None:
        """Go on with a job that an earlier daemon registered and whose process still runs.

        Its limits, its books, its levels and the decision in force are what they were; only when the job
        is heard again is it decided anew.
        """
        with self.lock:
            # The wall clock may have been stepped meanwhile.
            started = min(now.after((job.started_wall_ns - now.wall_ns) / NS), now)
            live = self._taken(LiveJob(job, tree, started=started, steps=Steps(done=job.steps_done)))
            # What its processes used since is the job's too.
            live.cpu_s = job.cpu_s if job.cpu_s is not None else tree.cpu_s()
            live.spent_j, live.spent_g = spent_j, job.carbon_g
            live.steps_at_tick = job.steps_done
            live.steps_known_by = "an earlier daemon" if job.steps_total is not None else ""
            if job.costs:
                self._give_levels(live, job.costs)
                # It is measured already: no warm-up at the top again.
                live.attached = started
            if decision is not None:
                live.state = State(decision=decision, changed=started, decided=started)
                live.number(now)

    def _taken(self, live: LiveJob) -> LiveJob:
        """File a job with what its earlier runs taught."""
        runs = self._past.runs(live.job.signature)
        live.steps_before = tuple(run.steps_done for run in runs)
        live.tail_prior_j = (runs[0].tail_j or 0.0) if runs else 0.0
        self._live[live.job.id] = live
        return live

    def process_of(self, tree: ProcessTree) -> str:
        """Return who a process is on this boot, beyond its pid, which is used again; empty: there is none."""
        return f"{self._boot_id}:{tree.start}" if tree.start is not None else ""

    def attach(self, job_id: str, request: wire.AttachRequest, uid: int, now: Instant) -> None:
        """Note what the job's model can do. An agent that comes again keeps what was learned."""
        with self.lock:
            live = self.own(job_id, uid)
            costs = tuple(request.costs)
            if live.profile is None or live.profile.costs != costs:
                self._give_levels(live, costs)
                # A decision about other levels says nothing of these.
                live.state, live.refused, live.sent = State(), {}, {}
            if request.steps is not None and live.steps_known_by != "--steps":
                live.update(steps_total=request.steps)
                live.steps_known_by = "the script"
            live.update(costs=costs, report=tuple(request.report))
            live.attached = live.attached or now
        self.wake()

    def _give_levels(self, live: LiveJob, costs: tuple[float, ...]) -> None:
        live.profile = live.profile_key = None
        if costs:
            live.profile_key = ProfileKey(live.job.signature, self._device, costs)
            live.profile = LevelProfile.prior(costs, self._past.learned(live.profile_key))

    def limit(self, job_id: str, limits: Limits, uid: int) -> None:
        """Let a job use so much from now on, by hand; without any limit, what the machine gives to each."""
        with self.lock:
            live = self.own(job_id, uid)
            by_hand = limits != Limits()
            live.update(limits=limits if by_hand else self._default, by_hand=by_hand)
            # What was remembered of the old limits (how short they were, what was announced) is not of these.
            live.state = replace(live.state, memory={})
            live.unsaid = True
        self.wake()

    def progress(self, job_id: str, progress: wire.Progress, uid: int) -> None:
        """Take in where the training loop is."""
        with self.lock:
            live = self.own(job_id, uid)
            refused = len(live.refused)
            live.report(progress)
        if len(live.refused) != refused:
            self.wake()

    def end(self, job_id: str, request: wire.EndRequest, uid: int) -> threading.Event:
        """Note that the process has ended; the event is set when its last joules are stored."""
        with self.lock:
            live = self.own(job_id, uid)
            live.ending = request
        self.wake()
        return live.ended

    def get(self, job_id: str) -> LiveJob:
        """Return one live job; raises NotFound."""
        with self.lock:
            live = self._live.get(job_id)
            if live is None:
                raise NotFound(f"job {job_id!r} is not running here")
            return live

    def own(self, job_id: str, uid: int) -> LiveJob:
        """Return a live job to its owner or root; raises NotFound, PermissionDenied."""
        live = self.get(job_id)
        if uid not in (0, live.job.uid):
            raise PermissionDenied(f"job {job_id} belongs to user {live.job.uid}, not to {uid}")
        return live

    def live(self) -> list[LiveJob]:
        """Return all live jobs."""
        with self.lock:
            return list(self._live.values())

    def drop(self, jobs: Sequence[LiveJob]) -> None:
        """Forget jobs whose end has been stored, and tell whoever waits for it."""
        with self.lock:
            for live in jobs:
                self._live.pop(live.job.id, None)
                live.ended.set()


NEW_PROCESS_S = 5.0
"""A process registered within so many seconds of its start is counted from its start."""


def signature_of(command: Sequence[str], uid: int) -> str:
    """Return what runs of one command by one user have in common."""
    return hashlib.sha256("\0".join([str(uid), *command]).encode()).hexdigest()[:16]


def _name_of(command: Sequence[str]) -> str:
    """Name a job after its script: `python train.py` is `train.py`."""
    words = [word.rsplit("/", 1)[-1] for word in command if not word.startswith("-")]
    scripts = [word for word in words if word.endswith(".py")]
    return (scripts or words or ["job"])[0]
