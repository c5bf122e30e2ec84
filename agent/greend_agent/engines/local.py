"""One process: the level that is wanted is the level in force."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection
from typing import Any

from torch import nn

from greend_agent import refusals
from greend_agent.hook import Hook
from greend_agent.interrupts import Interrupts
from greend_agent.plan import Call, Plan
from greend_agent.windows.ladder import Ladder
from greend_agent.windows.window import WindowSet

STANDING_S = 15.0
"""Well below what operations between processes wait by default: minutes (NCCL 10, gloo 30)."""


class Engine:
    """What the agent asks and tells at each point of a step; others override what is different with them."""

    compact = False
    """Whether a level must have one memory layout from its first step on: see `WindowSet`."""
    alone = True
    """Whether no other process has to be at the same level."""

    def __init__(self, model: nn.Module) -> None:
        self.outer = model
        """What the training loop calls."""
        self.left: int | None = None
        """Optimizer steps still to come, where the agent knows; it sets this before it asks for a level."""
        self.stops = False
        """Whether the job is to stop: the same at the same step of all processes."""
        self.notes: list[str] = []
        """What the user should know of how the levels of an agreed plan are run, a line each."""
        self.abandon: Callable[[], None] = lambda: None
        """Makes the step under way go on at full with the gradients that it has; set by the agent."""

    @property
    def model(self) -> nn.Module:
        """What is planned and narrowed: the module without what wraps it."""
        return self.outer

    @property
    def callers(self) -> tuple[nn.Module, ...]:
        """What the training loop may call, where that is not one module."""
        return (self.outer,)

    def on_forward(self, hook: Hook) -> list[Any]:
        """Have a hook called before each forward with (module, args, kwargs); return handles to remove."""
        return [self.outer.register_forward_pre_hook(hook, with_kwargs=True)]

    def on_forward_end(self, hook: Hook, make: Callable[[Callable[[], Any]], Any]) -> list[Any]:
        """Have a hook called after each forward with (module, args, output), also when it has raised.

        And each forward made by `make`, where the engine can: it gets what makes it, and may do so again.
        """
        ends = self.outer.register_forward_hook(hook, always_call=True)
        return [ends, Interrupts(self.outer, hook, make)]

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Return the arguments of a forward as `model` gets them."""
        return Call.of(args, kwargs)

    def share(self, call: Call | None) -> Call | None:
        """Return the call that all processes plan from; each comes here, also one that will not plan."""
        return call

    def planning(
        self, trained: Collection[nn.Parameter]
    ) -> contextlib.AbstractContextManager[Collection[nn.Parameter]]:
        """Inside, `model` may be planned; the parameters given are those that are trained then."""
        return contextlib.nullcontext(trained)

    def own(self, plan: Plan) -> Plan:
        """Return a plan made in `planning` as one for the model as it is run."""
        return plan

    def ladder(self, plan: Plan) -> Ladder:
        """Return what the levels of a plan do to the model."""
        return plan.ladder

    def agree(self, plan: Plan) -> str | None:
        """Say why this plan cannot be used, where all processes have made one; None when it can."""
        return refusals.of_model(self.outer)  # other processes may have come since it was attached

    def lacking(self, reason: str) -> None:
        """Note, in place of `agree`, that this process has no plan, and why."""

    def level(self, want: int, top: int) -> int:
        """Return the level of the step that begins."""
        return want

    @property
    def can_stop(self) -> bool:
        """Whether all processes of the job would stop after the same step."""
        return refusals.processes() == 1

    def to_stop(self, wanted: bool) -> None:
        """Note whether the job is wanted to stop, from the step that begins on."""
        self.stops = wanted and self.can_stop

    @property
    def patience_s(self) -> float:
        """How long this process may stand between two steps, in seconds.

        Others may be waiting for it in operations that they give up: never as long as that.
        """
        return math.inf if refusals.processes() == 1 else STANDING_S

    def looks_on(self) -> None:
        """Note, in place of `level`, that a step begins that this process makes at full, come what may."""

    def began(self, level: int) -> None:
        """Note that a step begins at a level; its windows are on."""

    def lowered(self, level: int) -> None:
        """Note that the windows of a level below the top are on, before the forward."""

    def restored(self) -> None:
        """Note that everything is full again after a step below the top."""

    def stepped(self) -> None:
        """Note that the optimizer has stepped, at any level."""

    def warm(self, windows: WindowSet, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Do beforehand what the first forward at a level would have to do; the arguments are one's."""

    def failed(self) -> None:
        """Note that the agent stays full from now on."""

    def close(self) -> None:
        """Give back what the engine holds; the model is run as it was found."""
