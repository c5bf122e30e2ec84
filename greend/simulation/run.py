"""A governor over a simulated job: each turn goes into its books, to `decide`, and back to its agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from greend.clock import Instant, ManualClock
from greend.governor.conditions import Conditions, Intensity, Machine
from greend.governor.decide import decide
from greend.governor.policy import Policy, State
from greend.governor.power import reckons_wrongly
from greend.governor.profile import LevelProfile
from greend.simulation.plant import Plant
from greend.types import Decision
from greend.wire import Directive

J_PER_KWH = 3.6e6
CARRIED_S = 2.0
"""A count of steps is carried forward at its own pace for so long."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the governor is told of a job beside its meter and its progress."""

    costs: tuple[float, ...]
    """The agent's estimates, relative to the top."""
    steps_total: int | None = None
    steps_before: tuple[int, ...] = ()
    tail_j: float = 0.0
    remembered: Mapping[str, Any] | None = None
    """What an earlier run's profile handed down."""
    intensity: Callable[[Instant], Intensity | None] = lambda now: None
    price_per_kwh: float | None = None
    machine: Callable[[Instant], Machine] = lambda now: Machine()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job."""

    steps_total: int
    steps_done: int
    used_j: float
    metered_j: float
    seconds: float
    steps_at: tuple[int, ...]
    """Steps made at each level."""
    quality: float
    """What the steps were worth, as a share of all steps at the top."""
    switches: int
    stopped: bool
    decisions: tuple[Decision, ...]
    profile: LevelProfile = field(repr=False)
    emitted_g: float = 0.0

    @property
    def infeasible(self) -> tuple[Decision, ...]:
        """The decisions that said that a limit cannot be met."""
        return tuple(decision for decision in self.decisions if not decision.feasible)


class Mark(NamedTuple):
    """Where a job was when a step ended: from mark to mark all steps are whole ones."""

    steps: int
    at_s: float
    spent_j: float


class Governed:
    """What the daemon does for one job, turn by turn, in simulated time."""

    def __init__(self, known: Known, plant: Plant, clock: ManualClock, latency_s: float = 0.05) -> None:
        self.known, self.plant, self.clock, self.latency_s = known, plant, clock, latency_s
        self.profile = LevelProfile.prior(known.costs, known.remembered)
        self.state = State()
        self.decisions: list[Decision] = []
        self.spent_j = 0.0
        self.spent_g = 0.0
        self.started = clock.now()
        self.attached: Instant | None = None
        self._told: Directive | None = None
        self._steps = 0.0
        self._level: int | None = None
        self._report = (0, 0.0)
        self._rate = 0.0
        self._switch_s = 0.0
        self._used_j = 0.0
        self._mark = Mark(0, 0.0, 0.0)
        self._metered = True
        self._power_w = 0.0

    def turn(self, policy: Policy, seconds: float) -> None:
        """Let the job run for so long, take the books, and tell its agent what is decided."""
        plant = self.plant
        plant.advance(seconds)
        now = self.clock.advance(seconds)
        used_j = plant.counter.increase_j(plant.now_s)
        before_j, self.spent_j = self.spent_j, self.spent_j + used_j
        intensity = self.known.intensity(now)
        if intensity is not None:
            self.spent_g += used_j / J_PER_KWH * intensity.now_g_per_kwh
        # A turn in which the meter stood, or in which it gives back what it owed, says nothing.
        self._metered = self._metered and used_j > 0 and self._used_j > 0
        # Nor does the turn in which the agent came: the start of the job has a part in it.
        if self.attached is not None and plant.steps > self._mark.steps:
            part = (plant.step_at_s - plant.now_s + seconds) / seconds
            self._learn(Mark(plant.steps, plant.step_at_s, before_j + used_j * min(max(part, 0.0), 1.0)))
        if plant.steps == 0:
            return
        self._steps = self._steps_now()
        self.attached = self.attached or now
        self._switch_s = plant.workload.switch_s if plant.switches else 0.0
        self._used_j, self._power_w = used_j, used_j / seconds
        self._decide(policy, now, intensity)

    def _learn(self, mark: Mark) -> None:
        """Teach the profile what the whole steps since the last mark cost, if all were made at one level."""
        plant, last = self.plant, self._mark
        steady = plant.levels_since == {self._level} and last.steps > 0
        if steady and self._metered:
            used_j, seconds = mark.spent_j - last.spent_j, mark.at_s - last.at_s
            self.profile = self.profile.observe(plant.step_level, used_j, mark.steps - last.steps, seconds)
        self._mark, self._metered = mark, True
        self._level, plant.levels_since = plant.step_level, set()

    def _steps_now(self) -> float:
        """Return the steps made as the daemon knows them: the last report, carried forward at its pace."""
        plant = self.plant
        steps, at_s = self._report
        if plant.steps > steps:
            self._rate = (plant.steps - steps) / (plant.step_at_s - at_s) if at_s else 0.0
            self._report = steps, at_s = plant.steps, plant.step_at_s
        ahead_s = plant.now_s - at_s
        carried = steps + (self._rate * ahead_s if ahead_s <= CARRIED_S else 0.0)
        return min(carried, float(plant.workload.steps))

    def _decide(self, policy: Policy, now: Instant, intensity: Intensity | None) -> None:
        known = self.known
        conditions = Conditions(
            profile=self.profile,
            spent_j=self.spent_j,
            steps_done=self._steps,
            steps_total=known.steps_total,
            steps_before=known.steps_before,
            level=self.plant.step_level,
            started=self.started,
            attached=self.attached,
            switch_s=self._switch_s,
            switch_j=self._switch_s * self._power_w,
            tail_j=known.tail_j,
            spent_g=self.spent_g,
            machine=known.machine(now),
            intensity=intensity,
            price_per_kwh=known.price_per_kwh,
            waiting_w=self.plant.device.idle_w,
        )
        last = self.state.decision
        decision, self.state = decide(policy, self.state, conditions, now)
        if decision is not last:
            self.decisions.append(decision)
        elif not self._pays_wrongly():
            return
        self._told = directive(decision, self._told.seq + 1 if self._told else 1, self.profile)
        self.plant.obey(self._told, self.plant.now_s + self.latency_s)

    def _pays_wrongly(self) -> bool:
        told = self._told
        if told is None or told.power_w is None:
            return False
        told_j = told.step_j[told.level] if told.level < len(told.step_j) else None
        return reckons_wrongly(told_j, self.profile, told.level)


def directive(decision: Decision, seq: int, profile: LevelProfile) -> Directive:
    """Return what the daemon tells an agent of a decision."""
    step_j = profile.step_j() or ()
    return Directive(
        seq=seq,
        level=decision.level,
        reason=decision.reason,
        ttl_s=30.0,
        pace=decision.pace,
        power_w=decision.power_w,
        burst_j=decision.burst_j,
        action=decision.action,
        step_j=[joules if profile.known(level) else None for level, joules in enumerate(step_j)],
    )


def run(
    policy_at: Callable[[Instant], Policy],
    known: Known,
    plant: Plant,
    clock: ManualClock | None = None,
    tick_s: float = 1.0,
    latency_s: float = 0.05,
    most_s: float = 30 * 86400.0,
) -> Outcome:
    """Run a plant to its end under the policy in force at each instant, and return what became of it.

    A job that is paused for good ends after `most_s` seconds.
    """
    clock = clock or ManualClock()
    governed = Governed(known, plant, clock, latency_s)
    while not plant.done and plant.now_s < most_s:
        governed.turn(policy_at(clock.now()), tick_s)
    steps = plant.workload.steps
    return Outcome(
        steps_total=steps,
        steps_done=plant.steps,
        used_j=plant.energy_j,
        metered_j=governed.spent_j,
        seconds=plant.now_s,
        steps_at=tuple(plant.steps_at),
        quality=plant.quality / steps if steps else 1.0,
        switches=plant.switches,
        stopped=plant.stopped,
        decisions=tuple(governed.decisions),
        profile=governed.profile,
        emitted_g=governed.spent_g,
    )
