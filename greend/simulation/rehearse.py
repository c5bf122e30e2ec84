"""What would have happened: a job as it is known, under other limits or rules, through the same core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from greend.clock import Instant, ManualClock
from greend.config import Governor
from greend.governor.conditions import Intensity
from greend.governor.contract import policy_for
from greend.governor.hull import quality_by_cost
from greend.governor.profile import LevelProfile
from greend.governor.rules import Rule
from greend.simulation.device import Device
from greend.simulation.meter import Meter
from greend.simulation.plant import Plant
from greend.simulation.run import Known, Outcome, run
from greend.simulation.workload import Contention, Workload
from greend.types import Decision, Job, Limits

BOOT_NS = 1_000_000_000_000
MOST_TURNS = 20_000
"""A rehearsal of more turns than this would take more than a few seconds."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a job that has run, or is made up: enough to run it again in simulated time."""

    costs: tuple[float, ...]
    """The agent's estimates, relative to the top."""
    step_j: tuple[float, ...]
    step_s: tuple[float, ...]
    steps: int
    startup_j: float = 0.0
    startup_s: float = 0.0
    tail_j: float = 0.0
    tail_s: float = 0.0
    switch_j: float = 0.0
    switch_s: float = 0.0
    quality: tuple[float, ...] = ()
    """What a step at each level is worth; empty: what `quality_by_cost` says."""
    idle_w: float = 0.0
    """What the job is charged for while it waits; of a job's own joules, nothing."""
    noise: float = 0.02
    drift: float = 0.0
    contention: tuple[Contention, ...] = ()
    started_wall_ns: int = 1_780_000_000_000_000_000
    name: str = "rehearsal"
    remembered: Mapping[str, Any] | None = None
    """What an earlier run's profile had handed down to it."""
    price_per_kwh: float | None = None
    intensity: Intensity | None = None
    meter: Meter = field(default_factory=Meter)

    @classmethod
    def of(
        cls, job: Job, profile: LevelProfile, used_j: float, decisions: Sequence[Decision]
    ) -> Facts | None:
        """Return the facts of a job that has ended; None when nothing was measured of its levels.

        `used_j` is what it used from start to end. The profile knows what a step cost last; the joules that
        neither the steps at each level nor the tail explain are those of its start.
        """
        step_j, step_s = profile.step_j(), profile.step_s()
        if step_j is None or step_s is None or job.steps_done <= 0:
            return None
        made = steps_at(decisions, job.steps_done, profile.top)
        tail_j = job.tail_j or 0.0
        in_steps_j = sum(count * joules for count, joules in zip(made, step_j, strict=True))
        startup_j = used_j - tail_j - in_steps_j
        if startup_j < 0:
            # The steps cost less over the whole run than at its end.
            cheaper = (used_j - tail_j) / in_steps_j
            step_j, startup_j = tuple(joules * cheaper for joules in step_j), 0.0
        return cls(
            job.costs,
            step_j,
            step_s,
            job.steps_done,
            startup_j=startup_j,
            tail_j=tail_j,
            started_wall_ns=job.started_wall_ns,
            name=job.name,
        )

    @property
    def power_w(self) -> float:
        """The most that the job draws in any of its steps, in watts."""
        return max(joules / seconds for joules, seconds in zip(self.step_j, self.step_s, strict=True))

    def device(self) -> Device:
        """Return a device on which the steps cost just that, and that takes no limit of its own."""
        return Device(self.idle_w, self.power_w, self.power_w)

    def workload(self) -> Workload:
        """Return the job as the plant runs it."""
        pairs = zip(self.step_j, self.step_s, strict=True)
        return Workload(
            dynamic_j=tuple(max(joules - self.idle_w * seconds, 0.0) for joules, seconds in pairs),
            steps=self.steps,
            quality=self.quality or quality_by_cost(self.costs),
            least_step_s=self.step_s,
            noise=self.noise,
            drift=self.drift,
            contention=self.contention,
            startup_j=self.startup_j,
            startup_s=self.startup_s,
            tail_j=self.tail_j,
            tail_s=self.tail_s,
            switch_j=self.switch_j,
            switch_s=self.switch_s,
        )

    def free_j(self) -> float:
        """Return what the job is expected to use with nothing held down, in joules."""
        work, device = self.workload(), self.device()
        steps_j = sum(work.step_j(device, work.top, step) for step in range(self.steps))
        return self.startup_j + steps_j + self.tail_j


def steps_at(decisions: Sequence[Decision], steps_done: int, top: int) -> tuple[int, ...]:
    """Return how many steps were made at each level, by the decisions in their order."""
    made = [0] * (top + 1)
    level, since = top, 0
    for decision in decisions:
        at = min(max(decision.at_step, since), steps_done)
        made[level] += at - since
        level, since = min(decision.level, top), at
    made[level] += steps_done - since
    return tuple(made)


def rehearse(
    facts: Facts,
    limits: Limits,
    rules: Sequence[Rule] = (),
    settings: Governor | None = None,
    seed: int = 0,
) -> Outcome:
    """Run the job that the facts describe under other limits and rules; rules act, also those that advise.

    Raises Unenforceable where the limits ask for what no software can hold.
    """
    job = Job(
        id="rehearsal",
        name=facts.name,
        command=(),
        signature="",
        uid=0,
        pid=0,
        started_wall_ns=facts.started_wall_ns,
        limits=limits,
        by_hand=True,
        steps_total=facts.steps,
        costs=facts.costs,
    )
    settings = settings or Governor()
    acting = tuple(replace(rule, mode="act") for rule in rules)
    known = Known(
        costs=facts.costs,
        steps_total=facts.steps,
        tail_j=facts.tail_j,
        remembered=facts.remembered,
        intensity=lambda now: facts.intensity,
        price_per_kwh=facts.price_per_kwh,
    )
    plant = Plant(facts.workload(), facts.device(), facts.meter, seed)
    # A job of days is rehearsed in longer turns than the daemon's second.
    tick_s = max(1.0, round(facts.steps * facts.step_s[-1] / MOST_TURNS))
    clock = ManualClock(Instant(BOOT_NS, facts.started_wall_ns))
    return run(lambda now: policy_for(job, settings, acting, (), now), known, plant, clock, tick_s)
