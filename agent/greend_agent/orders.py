"""What is asked of the training loop, step by step, and what it answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from greend.types import Action
from greend_agent.engines.local import Engine
from greend_agent.knobs.pace import Pace
from greend_agent.signals import Applied, Order, Signals

_log = logging.getLogger("greend")

_UNSTOPPABLE = (
    "asked to stop, which nothing in this job can: read agent.should_stop in the training loop, or give "
    "attach(..., on_stop=...); it runs on at level 0"
)
_APART = "asked to stop, but the processes of this job cannot agree on a step; it runs on at level 0"


class Orders:
    """The orders of one loop. The link hears of each what became of it, once it is in force.

    A job that pauses waits here. One of several processes makes a step now and then meanwhile, so that none
    waits for another as long as their operations would (`Engine.patience_s`): a pause of such a job is not
    quite one, and does not end it.
    """

    def __init__(
        self,
        signals: Signals,
        engine: Engine,
        say: Callable[[str], None],
        on_stop: Callable[[], object] | None = None,
    ) -> None:
        self.engine = engine
        self.pace = Pace(signals, patience_s=lambda: self.engine.patience_s)
        self.pace.on_stand = self.acknowledge
        self.switch_s = 0.0
        """What the last change of level took."""
        self.stop_is_read = False
        """Whether the training loop has asked if it is to stop: then it can."""
        self._signals, self._say, self._on_stop = signals, say, on_stop
        self.answered: Order | None = self.pace.order
        """The order of which the link has heard what became of it."""
        self._refused: dict[int, tuple[int, str]] = {}  # levels that raised: the level instead, and why
        self._failed: tuple[Order, str] | None = None  # with which no level was left, and why

    def obey(self, level: int, steps: int, costs: Sequence[float]) -> Order:
        """Wait as is asked, between two steps; return what the step that begins is made by."""
        order = self.pace.before_step(level, steps, costs)
        if order is not self.answered:
            self.engine.to_stop(order.action is Action.STOP)
        return order

    def instead(self, level: int) -> int:
        """Return the level that is entered where one is asked for: another, where that has raised before."""
        while level in self._refused:
            level = self._refused[level][0]
        return level

    def refuse(self, level: int, instead: int, reason: str) -> None:
        """Note that a level cannot be entered, and which is kept in its place, from now on."""
        self._refused[level] = instead, f"level {level} cannot be entered: {reason}"
        _log.warning("greend: level %d is refused, %d is kept: %s", level, instead, reason, exc_info=True)
        self._say(f"refused: level {level}: {reason}")

    def give_up(self, top: int, reason: str) -> None:
        """Note that there is no level below the top any more."""
        order = self.pace.order
        if order.level < top:
            self._failed, self.answered = (order, reason), None

    def acknowledge(self) -> None:
        """Say which order is in force now, and what of it could not be done."""
        order = self.pace.order
        if order is not self.answered:
            self.answered = order
            self.engine.to_stop(order.action is Action.STOP)
            self._signals.applied = Applied(order.seq, self._refusal(order), self.switch_s)

    def _refusal(self, order: Order) -> str:
        if order.action is Action.STOP:
            return self._cannot_stop()
        if self._failed is not None and self._failed[0] is order:
            return self._failed[1]
        return self._refused.get(order.level, (0, ""))[1]

    def _cannot_stop(self) -> str:
        if self.engine.can_stop and (self._on_stop is not None or self.stop_is_read):
            return ""
        reason = _UNSTOPPABLE if self.engine.can_stop else _APART
        self._say(reason)
        return reason

    def stop(self) -> None:
        """Call what the user has given to be called when the job is to stop, once; raises what it raises."""
        if self._on_stop is not None:
            on_stop, self._on_stop = self._on_stop, None
            self.stop_is_read = True
            on_stop()
