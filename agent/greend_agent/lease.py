"""What a directive asks of the loop, and how long it holds when the daemon falls silent (pure)."""

from __future__ import annotations

import math
from dataclasses import replace

from greend.clock import NS
from greend.types import Action
from greend.wire import Directive
from greend_agent.signals import TOP, Order

LEAST_PACE = 0.01
"""A loop that should stand still is told to pause, and not to crawl."""
LEAST_TTL_S, USUAL_TTL_S, LONGEST_TTL_S = 0.1, 30.0, 3600.0
"""A time to live that is less is none, and the usual one is taken; no daemon may be silent for longer."""


class Lease:
    """The newest directive, and when the daemon was last heard.

    All instants are of one clock that goes through a suspend and never steps (CLOCK_BOOTTIME).
    """

    def __init__(self) -> None:
        self._directive: Directive | None = None
        self._heard_ns = 0

    @property
    def ttl_s(self) -> float | None:
        """How long the directive in force outlives the daemon's silence; None without one."""
        return self._directive.ttl_s if self._directive is not None else None

    @property
    def step_j(self) -> tuple[float | None, ...]:
        """Joules per step of each level, where the daemon has measured them."""
        return tuple(self._directive.step_j) if self._directive is not None else ()

    def heard(self, now_ns: int, directive: Directive | None = None) -> bool:
        """Note that the daemon spoke, which renews what is in force; return whether it said something new.

        A directive that is not newer than the last, by its number, is one that came twice or too late.
        Raises ValueError, with nothing renewed, for one of which a field is not of its kind: what the daemon
        wants is not known then, and what it wanted before must not live on for that.
        """
        if directive is not None:
            directive = checked(directive)
        self._heard_ns = now_ns
        if directive is None or (self._directive is not None and directive.seq <= self._directive.seq):
            return False
        self._directive = directive
        return True

    def slept(self, ns: int) -> None:
        """Note that this process was stopped for so long: it could not have heard anybody."""
        self._heard_ns += ns

    def number_anew(self) -> None:
        """Note that the daemon counts from the beginning: it has a new history, in which the job is new."""
        if self._directive is not None:
            self._directive = replace(self._directive, seq=0)

    def order(self, now_ns: int) -> Order | None:
        """Return what is asked of the loop at an instant; None when nothing was ever asked."""
        directive = self._directive
        if directive is None:
            return None
        order = Order(
            level=directive.level,
            pace=directive.pace,
            power_w=directive.power_w,
            burst_j=directive.burst_j,
            action=Action(directive.action),
            from_step=directive.apply_at_step,
            seq=directive.seq,
        )
        if now_ns - self._heard_ns <= directive.ttl_s * NS:
            return order
        # Whatever outlives the daemon, standing still does not: nobody would be left to end it.
        order = order._replace(action=Action.RUN, from_step=0)
        if directive.on_loss == "hold":
            return order
        if directive.on_loss == "safe":
            return order._replace(level=directive.safe_level)
        return Order(seq=directive.seq)


def checked(directive: Directive) -> Directive:
    """Return a directive of which every figure can be obeyed: what lies outside its range is as if not said.

    Raises ValueError for a field that is not of its kind.
    """
    action = directive.action if directive.action in tuple(Action) else Action.RUN
    ttl_s, pace = _number("ttl_s", directive.ttl_s), _number("pace", directive.pace)
    known = directive.step_j if isinstance(directive.step_j, list) else []
    return replace(
        directive,
        seq=_whole("seq", directive.seq),
        # A job that is to stop, and does not, at least uses little.
        level=0 if action == Action.STOP else _within("level", directive.level),
        safe_level=_within("safe_level", directive.safe_level),
        ttl_s=min(ttl_s, LONGEST_TTL_S) if ttl_s >= LEAST_TTL_S else USUAL_TTL_S,
        pace=pace if LEAST_PACE <= pace < 1 else 1.0,
        power_w=_positive("power_w", directive.power_w),
        burst_j=_positive("burst_j", directive.burst_j),
        action=action,
        apply_at_step=_whole("apply_at_step", directive.apply_at_step),
        step_j=[_positive("step_j", j) for j in known],
    )


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int):
        raise ValueError(f"directive: {name} is a whole number, not {value!r}")
    return value


def _within(name: str, value: object) -> int:
    return max(0, min(_whole(name, value), TOP))


def _number(name: str, value: object) -> float:
    if not isinstance(value, (int, float)):
        raise ValueError(f"directive: {name} is a number, not {value!r}")
    return value


def _positive(name: str, value: object) -> float | None:
    number = _number(name, value) if value is not None else 0.0
    return number if number > 0 and math.isfinite(number) else None
