"""What jobs are held to, and what is known around them: all of a decision that is not the job's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from greend.clock import Instant
from greend.config import Governor
from greend.daemon.governing import Turn
from greend.daemon.leases import Leases
from greend.daemon.limiting import Limiting
from greend.daemon.live import LiveJob
from greend.daemon.periods import PeriodBook
from greend.daemon.pricing import Prices
from greend.daemon.rulebook import RuleBook
from greend.errors import Unenforceable
from greend.governor.conditions import Intensity, Machine
from greend.governor.contract import hard_words, of_period, policy_for
from greend.governor.hold import Hold
from greend.governor.policy import Policy
from greend.types import Limits


@dataclass
class Terms:
    """Puts together what `decide` is asked with. Everything in it may change while the daemon runs."""

    settings: Governor
    leases: Leases
    periods: PeriodBook
    rules: RuleBook
    prices: Prices
    limiting: Limiting
    look: Callable[[], Machine]
    """Reads how busy and how hot the machine is."""
    keep_period: Callable[[str, Limits | None], None]
    """Keeps the budget of a day or month, or forgets it; raises StoreError."""

    def policy(self, live: LiveJob, now: Instant) -> Policy:
        """Return what binds a job now."""
        holds = [Hold(lease.name, lease.level, lease.reason) for lease in self.leases.of(live.job.id, now)]
        periods = [
            budget
            for period, limits in self.periods.limits.items()
            for budget in of_period(
                period, limits, self.periods.spending(period, now).end_wall_ns, self.settings
            )
        ]
        # A hard cap was taken because a device here can hold it. Until one does, and when one does no longer,
        # it is held on average, which the cap itself says.
        return policy_for(
            live.job, self.settings, self.rules.rules, holds, now, periods=periods, hardware=True
        )

    def check(self, limits: Limits) -> None:
        """Raise Unenforceable for limits that nothing here can keep, before they are taken."""
        why_not = self.limiting.why_not(limits.power_w or 0.0) if limits.hard else ""
        if why_not:
            raise Unenforceable(hard_words(limits, why_not))

    def machine(self) -> Machine:
        """Return how busy and how hot the machine is."""
        return self.look()

    def intensity(self, now: Instant) -> Intensity | None:
        """Return what a kWh emits now and ahead; None: nobody knows."""
        return self.prices.intensity(now)

    def price_per_kwh(self) -> float | None:
        """Return what a kWh costs; None: nobody said."""
        return self.prices.settings.price_per_kwh

    def spent_in(self) -> Mapping[str, float]:
        """Return the joules that all jobs have used in the day and the month under way."""
        return self.periods.spent_in()

    def account(self, energy_j: float, g_per_kwh: float | None, now: Instant) -> None:
        """Add what all jobs used in one turn to the books of day and month."""
        self.periods.account(energy_j, g_per_kwh, now)

    def capped_w(self, live: LiveJob) -> float | None:
        """Return the limit that the hardware holds for a job; None: none."""
        return self.limiting.capped_w(live)

    def prepare(self, live: Sequence[LiveJob], now: Instant) -> None:
        """See to the devices that the jobs run on, before it is decided about them."""
        self.limiting.look(live, now)

    def learn(self, live: LiveJob, turn: Turn, energy_j: float, steps: float) -> None:
        """Hear of a turn that says what a step costs on the job's devices as they are."""
        self.limiting.learn(live, turn, energy_j, steps)

    def set_period(self, period: str, limits: Limits | None) -> None:
        """Set what all jobs may use in each day or month; None: no such budget."""
        self.keep_period(period, limits)
        changed = {name: kept for name, kept in self.periods.limits.items() if name != period}
        # Replaced and not changed: the sampler's thread reads it.
        self.periods.limits = changed | ({period: limits} if limits is not None else {})

    def problems(self) -> dict[str, str]:
        """Return what does not work, by what it is."""
        found = {"forecast": self.prices.problem, "actuator": self.limiting.problem}
        return {name: problem for name, problem in found.items() if problem}
