"""One running job: what the daemon knows of it between two turns."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from greend import wire
from greend.clock import NS, Instant
from greend.config import Governor
from greend.governor.policy import State
from greend.governor.power import reckons_wrongly
from greend.governor.profile import LevelProfile
from greend.sources.processes import ProcessTree
from greend.store.profiles import ProfileKey, Remembered
from greend.types import Action, Job

STALE_PROGRESS_S = 2.0
"""A count of steps is carried forward at its own pace for so long; then the loop is taken to stand."""
SENT_KEPT = 8
"""Directives of which the daemon still knows what they asked for, when their answer comes."""


@dataclass
class Steps:
    """How many optimizer steps a job has made, as its agent reported them now and then."""

    done: int = 0
    at_ns: int = 0
    rate: float = 0.0
    """Steps per second between the last two reports."""
    level: int | None = None
    levels_since_tick: set[int] = field(default_factory=set)

    def report(self, progress: wire.Progress) -> bool:
        """Take in what the agent said; False: it is older than what was said before, and passed over."""
        if progress.mono_ns < self.at_ns:
            return False
        ahead_s = (progress.mono_ns - self.at_ns) / NS
        if self.at_ns and ahead_s > 0:
            self.rate = max(progress.step - self.done, 0) / ahead_s
        self.done = max(progress.step, self.done)
        self.at_ns = progress.mono_ns
        self.level = progress.level
        self.levels_since_tick.add(progress.level)
        return True

    def at(self, now: Instant, total: int | None) -> float:
        """Steps done by now: the last report carried forward, never beyond the total."""
        ahead_s = (now.mono_ns - self.at_ns) / NS
        carried = self.done + (self.rate * ahead_s if 0 < ahead_s <= STALE_PROGRESS_S else 0.0)
        return min(carried, total) if total is not None and total >= self.done else carried


class Mark(NamedTuple):
    """Where a job was when a step had ended: from one mark to the next all steps are whole ones.

    Steps of a second and turns of one would otherwise be counted in halves, and carried forward at the pace
    of another level: a level that is left and taken again at each look was learned 40 % too cheap by that.
    """

    steps: int
    at_ns: int
    spent_j: float


@dataclass
class LiveJob:
    """One running job. The sampler owns the energy side, the server's calls the rest."""

    job: Job
    tree: ProcessTree
    started: Instant
    steps: Steps = field(default_factory=Steps)
    profile: LevelProfile | None = None
    profile_key: ProfileKey | None = None
    profile_kept: LevelProfile | None = None
    """The profile as it was last given away to be stored."""
    state: State = field(default_factory=State)
    attached: Instant | None = None
    steps_known_by: str = ""
    """Who said how many steps there are: `--steps`, the script; empty: nobody."""
    steps_before: tuple[int, ...] = ()
    tail_prior_j: float = 0.0
    cpu_s: float = 0.0
    """CPU seconds of the tree that were somebody's already at the last tick, or before it was a job."""
    spent_j: float = 0.0
    spent_by: dict[str, float] = field(default_factory=dict)
    """Joules by device, since this daemon knows the job."""
    spent_g: float | None = None
    spent_at_last_step_j: float | None = None
    power_w: float = 0.0
    """What it drew over the last turn."""
    steps_at_tick: float = 0.0
    level_at_tick: int | None = None
    mark: Mark | None = None
    """Where the steps began that the next look teaches from; None: at the next step that ends."""
    switch_s: float = 0.0
    refused: dict[int, str] = field(default_factory=dict)
    """Levels that the agent could not take, with why."""
    sequence: int = 0
    sent: dict[int, int] = field(default_factory=dict)
    """The level that each of the last directives asked for, by its number."""
    told_j: float | None = None
    """What the agent was last told that a step of its level costs."""
    unsaid: bool = False
    """The agent has not heard all of what is to be in force, although the decision is the same."""
    ending: wire.EndRequest | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def top(self) -> int:
        """The level of the untouched model."""
        return max(len(self.job.costs) - 1, 0)

    def update(self, **changes: object) -> None:
        """Replace fields of the job."""
        self.job = replace(self.job, **changes)  # type: ignore[arg-type]

    def row(self) -> Job:
        """Return the job as it is stored with the samples of now, so that a restart goes on from there."""
        return replace(self.job, cpu_s=self.cpu_s, carbon_g=self.spent_g)

    def newly_learned(self) -> Remembered | None:
        """Return what is to be remembered of the levels, where that is more than at the last call."""
        profile = self.profile
        if profile is None or profile is self.profile_kept or profile.step_j() is None:
            return None
        self.profile_kept = profile
        return profile.remembered()

    def expected_j(self) -> float | None:
        """Return what the job will have used at its end; None: nobody knows yet.

        Where the levels can meet its budget, no more than that.
        """
        decision, total = self.state.decision, self.job.steps_total
        step_j = self.profile.step_j() if self.profile is not None else None
        if decision is None or total is None or step_j is None:
            return None
        left = max(total - self.steps_at_tick, 0.0)
        at_level_j = self.spent_j + left * step_j[decision.level] + self.tail_prior_j
        budget_j = self.job.limits.energy_j
        if budget_j is None:
            return at_level_j
        # A level below the top now is made up for at the top later, as far as the budget goes.
        at_top_j = self.spent_j + left * step_j[-1] + self.tail_prior_j
        return min(budget_j, at_top_j) if decision.feasible else at_level_j

    def report(self, progress: wire.Progress) -> None:
        """Take in where the loop is, and what became of the last directive."""
        if not self.steps.report(progress):
            return
        if progress.switch_s > 0:
            self.switch_s = progress.switch_s
        wanted = self.sent.get(progress.seq)
        # What is refused may also be to stop, or to hold a power: then the level is the one asked for.
        if progress.refused and wanted is not None and wanted != progress.level:
            self.refused[wanted] = progress.refused

    def _known_j(self, level: int) -> float | None:
        step_j = self.profile.step_j() if self.profile is not None else None
        known = step_j is not None and self.profile is not None and self.profile.known(level)
        return step_j[level] if step_j is not None and known else None

    def pays_wrongly(self) -> bool:
        """Return whether the agent holds a power, and reckons with another cost of its steps than it is."""
        decision = self.state.decision
        if decision is None or decision.power_w is None or self.profile is None:
            return False
        return reckons_wrongly(self.told_j, self.profile, decision.level)

    def number(self, now: Instant) -> None:
        """Give the next directive its number: newer than all before it, also those of an earlier daemon.

        Milliseconds of CLOCK_BOOTTIME, which no daemon on this boot has used before and nobody steps.
        """
        self.sequence = max(self.sequence + 1, now.mono_ns // 1_000_000)
        decision = self.state.decision
        if decision is not None:
            self.told_j = self._known_j(decision.level)
            # An agent that cannot stop goes to level 0: what it refuses then is no level.
            self.sent[self.sequence] = 0 if decision.action is Action.STOP else decision.level
            for old in list(self.sent)[:-SENT_KEPT]:
                del self.sent[old]

    def directive(self, settings: Governor) -> wire.Directive | None:
        """Return what its agent should follow, or None before the first decision."""
        decision = self.state.decision
        if decision is None:
            return None
        step_j: list[float | None] = []
        if self.profile is not None and (learned := self.profile.step_j()) is not None:
            step_j = [j if self.profile.known(level) else None for level, j in enumerate(learned)]
        return wire.Directive(
            seq=self.sequence,
            level=decision.level,
            reason=decision.reason,
            ttl_s=settings.lease_ttl_s,
            # Limits that a person set for this job outlive the daemon; a default of the machine does not.
            on_loss="hold" if self.job.by_hand else settings.on_loss,
            safe_level=min(settings.safe_level, self.top),
            pace=decision.pace,
            power_w=decision.power_w,
            burst_j=decision.burst_j,
            action=decision.action.value,
            step_j=step_j,
        )
