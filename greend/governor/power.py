"""A power cap: watts on average over a window, held by the device where it can, else by a token bucket."""

from __future__ import annotations

from dataclasses import dataclass, replace

from greend.clock import Instant
from greend.governor.conditions import Conditions
from greend.governor.constraint import Memory
from greend.governor.profile import LevelProfile
from greend.types import Bound, Rank
from greend.units import format_energy, format_power

BURST_SHARE = 0.02
"""Of a window's joules, so much may be made up for at once: enough for waits that end a little late."""
REPAID_WINDOWS = 1.5
"""What was used beyond the cap is taken back over so many windows: within one it would swing about it."""
LEAST_RATE = 0.5
"""The bucket is filled with no less than this share of the cap, however much was used beyond it."""
COARSE = 0.02
"""The bucket's rate is corrected in steps of this share of the cap, at most once a window."""
RECKONED = 0.02
"""A step whose cost has moved by more than this share is told anew to an agent that pays with it."""


@dataclass(frozen=True, slots=True)
class Account:
    """What a job used against its cap: a bucket in measured joules, where the agent's has expected ones."""

    at: Instant
    spent_j: float
    watts: float
    """The cap at the last turn."""
    rate_w: float
    """What the agent's bucket is filled with now..."""
    since: Instant
    """...and since when."""
    held_j: float = 0.0
    """What it might use at once; below zero: what it has used beyond the cap and not yet given back."""


@dataclass(frozen=True, slots=True)
class PowerCap:
    """No more than `watts` on average over any `window_s`.

    The level is left alone: on a device that is busy all the time a smaller model makes more steps at the
    same power. The bucket b holds 2 % of a window's joules, and for every window w
    E(w) <= watts·w + b + e, with e the joules of one step (`greend.bucket`).
    """

    watts: float
    window_s: float = 10.0
    hard: bool = False
    """It must hold at every instant: only the device can do that, see `contract.policy_for`."""
    shared: bool = False
    """The cap is the machine's, and its jobs share it equally."""
    by: str = "power cap"

    def bound(self, conditions: Conditions, memory: Memory, now: Instant) -> tuple[Bound | None, Memory]:
        """Return the power to be held, and the account of what was used."""
        watts = self.watts / max(conditions.sharing, 1) if self.shared else self.watts
        top = conditions.profile.top
        wanted = self._words(watts, conditions)
        if conditions.capped_w is not None and conditions.capped_w <= watts * (1 + COARSE):
            reason = f"{wanted}: the device holds {format_power(conditions.capped_w)} by itself"
            return Bound(self.by, Rank.CAP, top, reason, figures={"cap_w": watts}), None
        account = self._account(watts, conditions, memory, now)
        return self._bucket(wanted, watts, account, conditions), account

    def _words(self, watts: float, conditions: Conditions) -> str:
        when = "at every instant" if self.hard else f"on average over any {self.window_s:g} s"
        whole = f" ({format_power(self.watts)} among {conditions.sharing} jobs)"
        return f"at most {format_power(watts)} {when}{whole if watts != self.watts else ''}"

    def _account(self, watts: float, conditions: Conditions, memory: Memory, now: Instant) -> Account:
        """Return the account after this turn, with the rate at which what was used too much is given back.

        The agent's bucket counts the joules that a step is expected to use. What the meter says is the
        truth: a standing error of the expectation would be a standing error of the power.
        """
        full_w = _rate_w(watts, conditions)
        if not isinstance(memory, Account):
            return Account(now, conditions.spent_j, watts, full_w, now)
        gained_j = watts * now.seconds_since(memory.at) - (conditions.spent_j - memory.spent_j)
        step_j, burst_j = _step_j(conditions), self._burst_j(watts)
        held_j = min(memory.held_j + gained_j, burst_j + step_j)
        after = replace(memory, at=now, spent_j=conditions.spent_j, watts=watts, held_j=held_j)
        # A step is begun with nothing owed and paid for when it ends: to owe one is how a bucket works. To
        # hold one beyond the burst, while the rate is below the cap, is to use less than may be used.
        beyond_j = max(held_j - burst_j, 0.0) - max(-held_j - step_j, 0.0)
        wanted_w = min(full_w + beyond_j / (REPAID_WINDOWS * self.window_s), watts)
        rate_w = max(wanted_w, LEAST_RATE * full_w)
        waited = now.seconds_since(memory.since) >= self.window_s or memory.watts != watts
        changed = abs(rate_w - memory.rate_w) >= COARSE * watts or (rate_w == watts != memory.rate_w)
        return replace(after, rate_w=rate_w, since=now) if waited and changed else after

    def _burst_j(self, watts: float) -> float:
        return BURST_SHARE * watts * self.window_s

    def _bucket(self, wanted: str, watts: float, account: Account, conditions: Conditions) -> Bound:
        burst_j, window_j, step_j = self._burst_j(watts), watts * self.window_s, _step_j(conditions)
        figures = {"cap_w": watts, "window_s": self.window_s, "burst_j": burst_j, "held_j": account.held_j}
        reason = f"{wanted}, held by waiting before steps"
        if step_j:
            worst_j = window_j + burst_j + step_j
            figures |= {"step_j": step_j, "worst_window_j": worst_j}
            reason += (
                f": a step costs {format_energy(step_j)}, so that no window has more than "
                f"{format_energy(worst_j)}, {(worst_j / window_j - 1) * 100:.0f} % above the cap"
            )
        if account.rate_w < _rate_w(watts, conditions) * (1 - COARSE):
            over = format_energy(max(-account.held_j, 0.0))
            reason += f"; {format_power(account.rate_w)} for now, to give back {over} that were too much"
        if self.hard:
            reason += "; its peaks are not held, since the device's own limit is not in force"
        return Bound(
            self.by, Rank.CAP, conditions.profile.top, reason,
            power_w=account.rate_w, burst_j=burst_j, feasible=not self.hard, figures=figures,
        )  # fmt: skip


def reckons_wrongly(told_j: float | None, profile: LevelProfile, level: int) -> bool:
    """Return whether an agent that was told what a step of its level costs pays too much or too little by it.

    It is told anew with each decision; but a bucket that pays a fifth too much holds a fifth less than its
    cap, and no decision ever follows from that.
    """
    step_j = profile.step_j()
    if step_j is None or not profile.known(level):
        return False
    return told_j is None or abs(step_j[level] / told_j - 1) > RECKONED


def _step_j(conditions: Conditions) -> float:
    """Return the joules of a step at the level in force; 0: not known yet."""
    step_j = conditions.profile.step_j()
    return step_j[_level(conditions)] if step_j is not None else 0.0


def _rate_w(watts: float, conditions: Conditions) -> float:
    """Return what the bucket is to be filled with so that the job draws `watts`, its waits among it.

    The agent pays for a step of e joules and s seconds; to wait t seconds draws `waiting_w` · t more, so that
    (e + waiting_w · t) / (s + t) = watts at a rate of e / (s + t).
    """
    waiting_w = conditions.waiting_w
    if not 0 < waiting_w < watts:
        return watts  # where waiting alone draws as much, no rate helps
    step_j, times = _step_j(conditions), conditions.profile.step_s()
    if not step_j or times is None:
        return watts
    dynamic_j = step_j - waiting_w * times[_level(conditions)]
    return min(step_j * (watts - waiting_w) / dynamic_j, watts) if dynamic_j > 0 else watts


def _level(conditions: Conditions) -> int:
    return conditions.level if conditions.level is not None else conditions.profile.top
