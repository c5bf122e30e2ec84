"""Each turn, for each job: what it spent and learned goes to the governor, and a decision comes back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from greend.clock import Instant
from greend.config import Governor
from greend.daemon.jobs import LiveJob
from greend.governor.budget import EnergyBudget
from greend.governor.decide import Conditions, Policy, State, decide
from greend.types import Consumer, Share


@dataclass
class Governing:
    """Folds shares and progress into each job's books, and asks `decide` what follows."""

    settings: Governor

    def step(
        self, live: Sequence[LiveJob], shares: Sequence[Share], previous: Instant, now: Instant
    ) -> tuple[list[LiveJob], list[LiveJob]]:
        """Take one turn's shares; return the jobs with a new decision, and those that have ended."""
        spent = _by_job(shares)
        decided: list[LiveJob] = []
        ended: list[LiveJob] = []
        for job in live:
            self._account(job, spent.get(job.job.id, 0.0), previous, now)
            if job.ending is not None or not job.tree.alive():
                self._close(job, now)
                ended.append(job)
            elif self._decide(job, now):
                decided.append(job)
        return decided, ended

    def _account(self, live: LiveJob, energy_j: float, previous: Instant, now: Instant) -> None:
        """Add the turn's joules, and learn what a step costs at the level that was in force."""
        before_j, live.spent_j = live.spent_j, live.spent_j + energy_j
        steps = live.steps.at(now, live.job.steps_total)
        made = steps - live.steps_at_tick
        levels = live.steps.levels_since_tick
        attached = live.state.attached
        # A turn in which the level changed, or the loop stood still, says nothing about the cost of one
        # level; nor does the one in which the agent attached, as its planning runs the model a dozen times.
        whole = attached is not None and attached <= previous and levels == {live.level_at_tick}
        if live.profile is not None and made > 0 and whole:
            live.profile = live.profile.observe(live.steps.level or 0, energy_j, made)
        if live.steps.done > live.job.steps_done:
            live.update(steps_done=live.steps.done)
            part = (live.steps.at_ns - previous.mono_ns) / (now.mono_ns - previous.mono_ns)
            live.spent_at_last_step_j = before_j + energy_j * min(max(part, 0.0), 1.0)
        live.steps_at_tick = steps
        live.level_at_tick = live.steps.level
        live.steps.levels_since_tick = set()

    def _decide(self, live: LiveJob, now: Instant) -> bool:
        if live.profile is None:
            return False
        policy = self._policy(live)
        conditions = Conditions(live.profile, live.spent_j, live.steps_at_tick, live.job.steps_total)
        decision = decide(policy, live.state, conditions, now)
        if decision is live.state.decision:
            return False
        last = live.state.decision
        changed = last is not None and last.level != decision.level
        live.state = replace(live.state, decision=decision, changed=now if changed else live.state.changed)
        live.sequence += 1
        return True

    def _policy(self, live: LiveJob) -> Policy:
        settings, budget_j = self.settings, live.job.budget_j
        budget = None
        if budget_j is not None:
            budget = EnergyBudget(budget_j, live.tail_prior_j, settings.reserve_share, settings.finish_share)
        return Policy(budget, settings.hold_s, settings.warmup_s)

    def _close(self, live: LiveJob, now: Instant) -> None:
        """Write the end into the job: its exit code, and what it used after its last step."""
        tail_j = None
        if live.spent_at_last_step_j is not None:
            tail_j = max(live.spent_j - live.spent_at_last_step_j, 0.0)
        exit_code = live.ending.exit_code if live.ending is not None else None
        live.update(ended_wall_ns=now.wall_ns, exit_code=exit_code, tail_j=tail_j)
        live.state = State()


def _by_job(shares: Sequence[Share]) -> dict[str, float]:
    parts: dict[Consumer, list[float]] = {}
    for share in shares:
        if share.consumer.kind == "job":
            parts.setdefault(share.consumer, []).append(share.energy_j)
    return {consumer.name: math.fsum(joules) for consumer, joules in parts.items()}
