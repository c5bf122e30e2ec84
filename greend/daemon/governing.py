"""Each turn, for each job: what it spent and learned goes to the governor, and a decision comes back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from greend.clock import NS, Instant
from greend.daemon.live import LiveJob, Mark
from greend.governor.conditions import Conditions, Intensity, Machine
from greend.governor.decide import decide
from greend.governor.policy import Policy, State
from greend.types import Share

J_PER_KWH = 3.6e6
MISSED_STEPS = 2.0
"""A loop that does not report a step in the time of so many stands still."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The stretch of time that a turn looks back on."""

    previous: Instant
    now: Instant
    metered: bool = True
    """Each joule of it was measured within it: no counter restarted, failed, stood still, gave back what it
    owed or may have wrapped unseen, and the machine did not sleep."""

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.now.seconds_since(self.previous)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a turn leads to."""

    decided: list[LiveJob]
    """Jobs with a new decision, to be stored..."""
    told: list[LiveJob]
    """...and those whose agents have something new to hear: these, and where the terms have changed."""
    ended: list[LiveJob]


class Surroundings(Protocol):
    """What the governor knows beside the jobs themselves."""

    def policy(self, live: LiveJob, now: Instant) -> Policy:
        """Return what binds a job now."""
        ...

    def machine(self) -> Machine:
        """Return how busy and how hot the machine is."""
        ...

    def intensity(self, now: Instant) -> Intensity | None:
        """Return what a kWh emits now and ahead; None: nobody knows."""
        ...

    def price_per_kwh(self) -> float | None:
        """Return what a kWh costs; None: nobody said."""
        ...

    def spent_in(self) -> Mapping[str, float]:
        """Return the joules that all jobs have used in the day and the month under way."""
        ...

    def account(self, energy_j: float, g_per_kwh: float | None, now: Instant) -> None:
        """Add what all jobs used in one turn to the books of day and month."""
        ...

    def prepare(self, live: Sequence[LiveJob], now: Instant) -> None:
        """See to the devices that the jobs run on, before it is decided about them."""
        ...

    def learn(self, live: LiveJob, turn: Turn, energy_j: float, steps: float) -> None:
        """Hear of a turn that says what a step costs on the job's devices as they are."""
        ...

    def capped_w(self, live: LiveJob) -> float | None:
        """Return the limit that the hardware holds for a job; None: none."""
        ...


@dataclass
class Governing:
    """Folds shares and progress into each job's books, and asks `decide` what follows."""

    around: Surroundings

    def step(self, live: Sequence[LiveJob], shares: Sequence[Share], turn: Turn) -> Outcome:
        """Take one turn's shares into the books and decide about each job."""
        now = turn.now
        intensity = self.around.intensity(now)
        g_per_kwh = intensity.now_g_per_kwh if intensity is not None else None
        spent = _by_job(shares)
        self.around.account(math.fsum(math.fsum(parts.values()) for parts in spent.values()), g_per_kwh, now)
        self.around.prepare(live, now)
        machine = self.around.machine() if any(job.profile is not None for job in live) else Machine()
        outcome = Outcome([], [], [])
        for job in live:
            self._account(job, spent.get(job.job.id, {}), g_per_kwh, machine, turn)
            if job.ending is not None or not job.tree.alive():
                _close(job, now)
                outcome.ended.append(job)
                continue
            decided = self._decide(job, machine, intensity, len(live), now)
            if decided:
                outcome.decided.append(job)
            if decided or job.unsaid or job.pays_wrongly():
                job.unsaid = False
                job.number(now)
                outcome.told.append(job)
        return outcome

    def _account(
        self,
        live: LiveJob,
        parts: Mapping[str, float],
        g_per_kwh: float | None,
        machine: Machine,
        turn: Turn,
    ) -> None:
        """Add the turn's joules, and learn what a step costs at the level that was in force."""
        energy_j = math.fsum(parts.values())
        for device, joules in parts.items():
            live.spent_by[device] = live.spent_by.get(device, 0.0) + joules
        before_j, live.spent_j = live.spent_j, live.spent_j + energy_j
        if g_per_kwh is not None:
            live.spent_g = (live.spent_g or 0.0) + energy_j / J_PER_KWH * g_per_kwh
        live.power_w = energy_j / turn.seconds
        if live.steps.done > live.job.steps_done:
            live.update(steps_done=live.steps.done)
            part = (live.steps.at_ns - turn.previous.mono_ns) / (turn.now.mono_ns - turn.previous.mono_ns)
            live.spent_at_last_step_j = before_j + energy_j * min(max(part, 0.0), 1.0)
        self._learn(live, machine, turn)
        live.steps_at_tick = live.steps.at(turn.now, live.job.steps_total)
        live.level_at_tick = live.steps.level
        live.steps.levels_since_tick = set()

    def _learn(self, live: LiveJob, machine: Machine, turn: Turn) -> None:
        """Teach the job's profile what the whole steps since the last mark say of their level."""
        if live.profile is None or live.spent_at_last_step_j is None or not turn.metered or machine.throttled:
            live.mark = None
            return
        here = Mark(live.job.steps_done, live.steps.at_ns, live.spent_at_last_step_j)
        since, live.mark = live.mark, here
        if since is None or not _is_steady(live, since, turn):
            return
        steps, seconds, energy_j = (
            here.steps - since.steps,
            (here.at_ns - since.at_ns) / NS,
            here.spent_j - since.spent_j,
        )
        if steps <= 0 or energy_j <= 0:
            # A slow job has turns without a step, and a light one turns in which its account of CPU time,
            # which goes by ticks of 10 ms, does not move: they are the next one's.
            live.mark = since
            return
        live.profile = live.profile.observe(live.steps.level or 0, energy_j, steps, seconds)
        self.around.learn(live, turn, energy_j, steps)

    def _decide(
        self, live: LiveJob, machine: Machine, intensity: Intensity | None, sharing: int, now: Instant
    ) -> bool:
        """Decide about a job; whether the decision is a new one."""
        if live.profile is None:
            return False
        if live.steps.level is None and live.state.decision is not None:
            return False  # what an earlier daemon decided stands until the agent is heard
        conditions = Conditions(
            profile=live.profile,
            spent_j=live.spent_j,
            steps_done=live.steps_at_tick,
            steps_total=live.job.steps_total,
            steps_before=live.steps_before,
            level=live.steps.level,
            refused=frozenset(live.refused),
            started=live.started,
            attached=live.attached,
            switch_s=live.switch_s,
            switch_j=live.switch_s * live.power_w,
            tail_j=live.tail_prior_j,
            spent_in=self.around.spent_in(),
            spent_g=live.spent_g or 0.0,
            sharing=sharing,
            machine=machine,
            intensity=intensity,
            price_per_kwh=self.around.price_per_kwh(),
            capped_w=self.around.capped_w(live),
        )
        last = live.state.decision
        decision, live.state = decide(self.around.policy(live, now), live.state, conditions, now)
        if decision is last:
            return False
        if live.refused:
            decision = replace(decision, reason=_with_refusals(decision.reason, live.refused))
            live.state = replace(live.state, decision=decision)
        return True


def _is_steady(live: LiveJob, since: Mark, turn: Turn) -> bool:
    """Whether the loop has gone on at one level since a mark.

    Not where the level changed or the loop stood still, nor while the agent attached, as its planning runs
    the model a dozen times.
    """
    if live.attached is None or live.attached > turn.previous:
        return False
    waited_steps = live.steps.rate * (turn.now.mono_ns - since.at_ns) / NS
    if not live.steps.levels_since_tick:
        return waited_steps <= MISSED_STEPS
    return live.steps.levels_since_tick == {live.level_at_tick}


def _with_refusals(reason: str, refused: Mapping[int, str]) -> str:
    words = "; ".join(f"level {level} cannot be taken: {why}" for level, why in sorted(refused.items()))
    return f"{reason}; {words}"


def _close(live: LiveJob, now: Instant) -> None:
    """Write the end into the job: its exit code, and what it used after its last step."""
    tail_j = None
    if live.spent_at_last_step_j is not None:
        tail_j = max(live.spent_j - live.spent_at_last_step_j, 0.0)
    exit_code = live.ending.exit_code if live.ending is not None else None
    live.update(ended_wall_ns=now.wall_ns, exit_code=exit_code, tail_j=tail_j)
    live.state = State()


def _by_job(shares: Sequence[Share]) -> dict[str, dict[str, float]]:
    """Return the joules of each job by device."""
    parts: dict[str, dict[str, float]] = {}
    for share in shares:
        if share.consumer.kind == "job":
            devices, device = parts.setdefault(share.consumer.name, {}), share.component.device
            devices[device] = devices.get(device, 0.0) + share.energy_j
    return parts
