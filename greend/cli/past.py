"""Jobs that have ended, as a rehearsal needs them: what happened, and what would under other limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from greend.cli import options
from greend.errors import ConfigError, GreendError, NotFound
from greend.governor.conditions import Intensity
from greend.governor.hull import quality_by_cost
from greend.governor.profile import LevelProfile
from greend.simulation.rehearse import Facts, rehearse, steps_at
from greend.store import jobs, profiles
from greend.types import Decision, Limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from greend.governor.rules import Rule
    from greend.store.engine import Store
    from greend.store.jobs import JobSummary
    from greend.store.profiles import Remembered


@dataclass(frozen=True, slots=True)
class Course:
    """How a job went, or would have gone."""

    energy_j: float | None
    seconds: float
    steps_done: int
    quality: float
    """What the steps were worth as a share of as many at the top: `quality_by_cost`."""
    changes: int
    """Changes of level."""
    steps_at: tuple[int, ...]
    """Steps at each level, least first."""
    problem: str = ""
    """Why a limit could not be met; empty: all were."""


@dataclass(frozen=True, slots=True)
class Past:
    """A job that has ended, with all that the history knows of it."""

    summary: JobSummary
    decisions: list[Decision]
    learned: Remembered | None
    """What its levels cost, as the last run of the same command learned it."""

    @property
    def seconds(self) -> float:
        """How long it ran."""
        job = self.summary.job
        return ((job.ended_wall_ns or 0) - job.started_wall_ns) / 1e9

    @property
    def steps_at(self) -> tuple[int, ...]:
        """Steps at each level, least first."""
        job = self.summary.job
        return steps_at(self.decisions, job.steps_done, len(job.costs) - 1)

    def course(self) -> Course:
        """Return how it went."""
        job, made = self.summary.job, self.steps_at
        worth = sum(steps * quality for steps, quality in zip(made, quality_by_cost(job.costs), strict=True))
        return Course(
            energy_j=self.summary.energy_j,
            seconds=self.seconds,
            steps_done=job.steps_done,
            quality=worth / max(job.steps_done, 1),
            changes=sum(d.previous not in (None, d.level) for d in self.decisions),
            steps_at=made,
            problem=next((d.reason for d in self.decisions if not d.feasible), ""),
        )

    def facts(self) -> Facts:
        """Return what a rehearsal starts from. Raises NotFound when its levels were never measured."""
        job, used_j = self.summary.job, self.summary.energy_j
        facts = None
        if self.learned is not None and used_j is not None:
            facts = Facts.of(job, LevelProfile.prior(job.costs, self.learned), used_j, self.decisions)
        if facts is None:
            raise NotFound(
                f"rehearse job {job.id}: what its steps cost is not known: no agent was attached to it, or "
                "it ended before its steps were measured"
            )
        pricing = options.settings().pricing
        g_per_kwh = pricing.intensity_g_per_kwh
        in_steps_s = sum(steps * seconds for steps, seconds in zip(self.steps_at, facts.step_s, strict=True))
        return replace(
            facts,
            # As with its joules: what its steps do not explain is taken for its start.
            startup_s=max(self.seconds - in_steps_s, 0.0),
            price_per_kwh=pricing.price_per_kwh,
            intensity=Intensity(g_per_kwh, source="settings") if g_per_kwh is not None else None,
        )


def ended(store: Store, word: str) -> Past:
    """Return a job that has ended. Raises NotFound, and GreendError for one that still runs."""
    with store.read() as connection:
        found = jobs.job(connection, word)
    if found.job.ended_wall_ns is None:
        raise GreendError(f"rehearse job {found.job.id}: it still runs; ask again when it has ended")
    return _past(store, found)


def all_ended(store: Store, limit: int, since_wall_ns: float) -> list[Past]:
    """Return those of the newest `limit` jobs that started since then and have ended, newest first."""
    with store.read() as connection:
        found = jobs.jobs(connection, limit)
    return [
        _past(store, summary)
        for summary in found
        if summary.job.ended_wall_ns is not None and summary.job.started_wall_ns >= since_wall_ns
    ]


def _past(store: Store, found: JobSummary) -> Past:
    job = found.job
    with store.read() as connection:
        learned = profiles.of_any_device(connection, job.signature, job.costs)
        return Past(found, jobs.decisions(connection, job.id), learned)


def check_priced(limits: Limits, facts: Facts) -> None:
    """Raise ConfigError for grams without a carbon intensity, and for money without a price."""
    if limits.carbon_g is not None and facts.intensity is None:
        raise ConfigError("rehearse a carbon budget: no intensity is set; set pricing.intensity_g_per_kwh")
    if limits.cost is not None and facts.price_per_kwh is None:
        raise ConfigError("rehearse a budget of money: no price is set; set pricing.price_per_kwh")


def rehearsed(facts: Facts, limits: Limits, rules: Sequence[Rule] = ()) -> Course:
    """Return how it would have gone under other limits and rules. Raises Unenforceable."""
    outcome = rehearse(facts, limits, rules, options.settings().governor)
    return Course(
        energy_j=outcome.used_j,
        seconds=outcome.seconds,
        steps_done=outcome.steps_done,
        quality=outcome.quality,
        changes=outcome.switches,
        steps_at=outcome.steps_at,
        problem=next((decision.reason for decision in outcome.infeasible), ""),
    )
