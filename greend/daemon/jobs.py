"""The jobs that run now: what the daemon knows of each between two ticks."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from greend import wire
from greend.clock import NS, Instant
from greend.errors import NotFound, PermissionDenied
from greend.governor.decide import State
from greend.governor.profile import LevelProfile
from greend.sources.processes import ProcessTree
from greend.types import Job

STALE_PROGRESS_S = 2.0
"""A count of steps is carried forward at its own pace for so long; then the loop is taken to stand."""


@dataclass
class Steps:
    """How many optimizer steps a job has made, as its agent reported them now and then."""

    done: int = 0
    at_ns: int = 0
    rate: float = 0.0
    """Steps per second between the last two reports."""
    level: int | None = None
    levels_since_tick: set[int] = field(default_factory=set)

    def report(self, progress: wire.Progress) -> None:
        """Take in what the agent said."""
        ahead_s = (progress.mono_ns - self.at_ns) / NS
        if self.at_ns and ahead_s > 0:
            self.rate = max(progress.step - self.done, 0) / ahead_s
        self.done = max(progress.step, self.done)
        self.at_ns = max(progress.mono_ns, self.at_ns)
        self.level = progress.level
        self.levels_since_tick.add(progress.level)

    def at(self, now: Instant, total: int | None) -> float:
        """Steps done by now: the last report carried forward, never beyond the total."""
        if not self.at_ns:
            return 0.0
        ahead_s = (now.mono_ns - self.at_ns) / NS
        carried = self.done + (self.rate * ahead_s if 0 < ahead_s <= STALE_PROGRESS_S else 0.0)
        return min(carried, total) if total is not None and total >= self.done else carried


@dataclass
class LiveJob:
    """One running job. The sampler owns the energy side, the server's calls the rest."""

    job: Job
    tree: ProcessTree
    steps: Steps = field(default_factory=Steps)
    profile: LevelProfile | None = None
    state: State = field(default_factory=State)
    steps_known_by: str = ""
    """Who said how many steps there are: `--steps`, the script, the last run; empty: nobody."""
    tail_prior_j: float = 0.0
    cpu_s: float = 0.0
    """CPU seconds of the tree that were somebody's already at the last tick, or before it was a job."""
    spent_j: float = 0.0
    spent_at_last_step_j: float | None = None
    steps_at_tick: float = 0.0
    level_at_tick: int | None = None
    sequence: int = 0
    dirty: bool = True
    """The stored row is older than what is known."""
    ending: wire.EndRequest | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def top(self) -> int:
        """The level of the untouched model."""
        return max(len(self.job.costs) - 1, 0)

    def update(self, **changes: object) -> None:
        """Replace fields of the job and mark its row for storing."""
        self.job = replace(self.job, **changes)  # type: ignore[arg-type]
        self.dirty = True

    def directive(self, ttl_s: float) -> wire.Directive | None:
        """Return what its agent should follow, or None before the first decision."""
        decision = self.state.decision
        if decision is None:
            return None
        # A budget that a person typed outlives the daemon; a default of the machine does not.
        on_loss = "hold" if self.job.by_hand else "top"
        step_j: list[float | None] = []
        if self.profile is not None and (learned := self.profile.step_j()) is not None:
            step_j = [j if self.profile.known(level) else None for level, j in enumerate(learned)]
        return wire.Directive(self.sequence, decision.level, decision.reason, ttl_s, on_loss, step_j=step_j)


class JobBook:
    """All live jobs, shared by the sampler's thread and the server's; every method takes the lock."""

    def __init__(
        self,
        last_run: Callable[[str], Job | None],
        wake: Callable[[], None],
        default_budget_j: float | None = None,
    ) -> None:
        self.lock = threading.RLock()
        self._live: dict[str, LiveJob] = {}
        self._last_run = last_run
        self._wake = wake
        self._default_budget_j = default_budget_j

    def register(self, request: wire.JobRequest, uid: int, tree: ProcessTree, now: Instant) -> Job:
        """Take a process tree as a job; a process that belongs to a live job already is that job."""
        with self.lock:
            for live in self._live.values():
                if request.pid in live.tree.pids():
                    return live.job
            signature = signature_of(request.command, uid)
            last = self._last_run(signature)
            steps_total, known_by = request.steps, "--steps" if request.steps is not None else ""
            if steps_total is None and last is not None:
                steps_total, known_by = last.steps_done, f"run {last.id} of the same command"
            job = Job(
                id=f"j-{secrets.token_hex(3)}",
                name=request.name or _name_of(request.command),
                command=tuple(request.command),
                signature=signature,
                uid=uid,
                pid=request.pid,
                started_wall_ns=now.wall_ns,
                budget_j=request.budget_j if request.budget_j is not None else self._default_budget_j,
                by_hand=request.budget_j is not None,
                steps_total=steps_total,
            )
            tail_j = (last.tail_j or 0.0) if last is not None else 0.0
            # All that a new process ever used is the job's; of an older one, what it uses from here on.
            cpu_s = 0.0 if tree.started_after(now.after(-NEW_PROCESS_S)) else tree.cpu_s()
            self._live[job.id] = LiveJob(job, tree, steps_known_by=known_by, tail_prior_j=tail_j, cpu_s=cpu_s)
            return job

    def adopt(self, job: Job, tree: ProcessTree, spent_j: float) -> None:
        """Go on with a job that an earlier daemon registered and whose process still runs."""
        with self.lock:
            steps = Steps(done=job.steps_done)
            self._live[job.id] = LiveJob(
                job, tree, steps=steps, cpu_s=tree.cpu_s(), spent_j=spent_j, dirty=False
            )

    def attach(self, job_id: str, request: wire.AttachRequest, uid: int, now: Instant) -> None:
        """Note what the job's model can do. An agent that comes again keeps what was learned."""
        with self.lock:
            live = self.own(job_id, uid)
            costs = tuple(request.costs)
            if live.profile is None or live.profile.costs != costs:
                live.profile = LevelProfile.prior(costs) if costs else None
            if request.steps is not None and live.steps_known_by != "--steps":
                live.update(steps_total=request.steps)
                live.steps_known_by = "the script"
            live.update(costs=costs, report=tuple(request.report))
            live.state = replace(live.state, attached=live.state.attached or now)
        self._wake()

    def progress(self, job_id: str, progress: wire.Progress, uid: int) -> None:
        """Take in where the training loop is."""
        with self.lock:
            self.own(job_id, uid).steps.report(progress)

    def end(self, job_id: str, request: wire.EndRequest, uid: int) -> threading.Event:
        """Note that the process has ended; the event is set when its last joules are stored."""
        with self.lock:
            live = self.own(job_id, uid)
            live.ending = request
        self._wake()
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
