"""The agent in the training loop: full at rest, a level from a step's first forward to its end."""

from __future__ import annotations

import contextlib
import logging
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from greend.clock import mono_ns
from greend_agent import refusals
from greend_agent.engines import Engine, engine_for
from greend_agent.hook import Hook
from greend_agent.link import Link
from greend_agent.others import Others
from greend_agent.plan import Call, Plan, make_plan
from greend_agent.saving import Saving
from greend_agent.signals import Position, Signals
from greend_agent.window import WindowSet

_log = logging.getLogger("greend")


class Agent:
    """Follows one model and its optimizer; made by `attach`.

    Between steps the user's process holds the original model. At the first training forward after a step
    the wanted level is read once and the windows are put on, and the optimizer's step takes them off: one
    level for a whole accumulation of gradients.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        levels: int = 4,
        already: int = 0,
        signals: Signals | None = None,
        link: Link | None = None,
        idle: str | None = None,
    ) -> None:
        self._model, self._optimizer, self._levels = model, optimizer, max(1, levels)
        self._signals = signals or Signals()
        self._link = link
        self._steps = already
        self._open = False  # whether the level of the step under way has been chosen
        self._level = 0
        self._costs = [1.0]
        self._report: list[str] = [f"not attached: {idle}"] if idle else []
        self._engine = Engine(model)
        self._windows: WindowSet | None = None
        self._call: Call | None = None
        self._looking = False  # whether a forward is still to be captured
        self._full_depth = 0
        self._catching = False
        self._handles: list[Any] = []
        if link is not None:
            # At exit the link sends the last progress itself.
            weakref.finalize(self, link.close).atexit = False

    def start(self) -> None:
        """Hang the hooks on the model and the optimizer."""
        self._handles += [
            self._model.register_forward_pre_hook(Hook(self._on_forward), with_kwargs=True),
            self._optimizer.register_step_post_hook(self._on_step),
        ]
        engine = engine_for(self._model)
        if isinstance(engine, str):
            self._stay_full(engine)
            return
        self._engine = engine
        self._looking = True
        self._report = ["no training forward of the model has been seen yet"]

    @property
    def level(self) -> int:
        """The level in force for the step under way, or the last one."""
        return self._level

    @property
    def want(self) -> int:
        """The level that the next step will have."""
        return max(0, min(self._signals.want, self._top))

    @property
    def _top(self) -> int:
        return len(self._costs) - 1

    @property
    def step_count(self) -> int:
        """Optimizer steps seen so far."""
        return self._steps

    @property
    def costs(self) -> list[float]:
        """Estimated cost of each level, least first, relative to the untouched model."""
        return list(self._costs)

    def request(self, level: int) -> None:
        """Ask for a level from the next step on, within those that there are; a directive overrides it."""
        self._signals.want = max(0, level)

    def report(self) -> list[str]:
        """Return what was found, proven and rejected in the model, a line each."""
        return list(self._report)

    def detach(self) -> None:
        """Give the model back: windows off, hooks removed, the daemon no longer followed."""
        self._drop_windows()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._looking, self._call = False, None
        self._costs, self._level, self._open = [1.0], 0, False
        self._engine.close()
        if self._link is not None:
            self._link.close()
        _living.pop(self._model, None)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Inside, the model has its original shapes, also between forward and step."""
        self._full_depth += 1
        try:
            with self._windows.lifted() if self._windows is not None else contextlib.nullcontext():
                yield
        finally:
            self._full_depth -= 1

    # --- the way of one step ---

    def _on_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Nothing of ours belongs in a compiled graph; first, as each attribute read would be a guard in it.
        if torch.compiler.is_compiling() or self._open or not module.training:
            return
        if module is self._model and torch.is_grad_enabled():
            self._guarded(self._begin, args, kwargs)

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._open = True
        top = self._top
        level = top if self._full_depth or self._signals.want >= top else self.want
        if self._windows is not None:
            level = self._engine.level(level, top)
            if level < top and not self._catching:
                # Not before it is needed: one more hook on each forward of a run that is never lowered.
                self._catching = True
                hook = Hook(self._on_forward_end)
                self._handles.append(self._model.register_forward_hook(hook, always_call=True))
            self._windows.apply(level)
            if level < top:
                self._engine.lowered(level)
        self._level = level
        if self._looking:
            self._looking, self._call = False, Call.of(args, kwargs)

    def _on_forward_end(self, module: nn.Module, args: Any, output: Any) -> None:
        # Called also when the forward has raised; nobody knows then whether a step will come.
        if output is None and module is self._model and sys.exc_info()[0] is not None:
            self._guarded(self._abandon)

    def _abandon(self) -> None:
        """Go on at full until the step, with the gradients that are already there."""
        if self._windows is not None and self._windows.level != self._windows.top:
            has_gradients = any(p.grad is not None for p in self._model.parameters())
            self._windows.restore(keep_gradients=True)
            self._level = self._windows.top
            self._open = has_gradients

    def _on_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._steps += 1
        self._signals.position = Position(self._steps, self._level, mono_ns())
        if self._windows is not None:
            self._windows.stepped()
            if self._windows.level != self._windows.top:
                self._guarded(self._restore)
        elif self._call is not None:
            self._guarded(self._plan)
        self._open = False  # not before: planning calls the model

    def _restore(self) -> None:
        if self._windows is not None:
            self._windows.restore()
            self._engine.restored()

    def _plan(self) -> None:
        call, self._call = self._call, None
        reason = refusals.of_optimizer(self._optimizer)
        if call is None or reason is not None:
            self._stay_full(reason or "no training forward was seen")
            return
        trained = [p for group in self._optimizer.param_groups for p in group["params"] if p.requires_grad]
        plan = make_plan(self._engine.model, call, levels=self._levels, trained=trained)
        self._report = plan.report
        if len(plan.table) < 2:
            self._stay_full("nothing in the model was proven narrowable")
            return
        if (reason := self._engine.agree(plan)) is not None:
            self._stay_full(reason)
            return
        self._install(plan)

    def _install(self, plan: Plan) -> None:
        self._windows = WindowSet(plan.ladder, self._optimizer)
        self._costs = list(plan.table.costs)
        self._level = self._top
        self._handles += [
            Saving(self._engine.model, self._optimizer, self._windows, self._guarded),
            Others(self._optimizer, self._windows.tensors, self._on_other_step),
        ]
        self._announce()

    def _on_other_step(self) -> None:
        if self._windows is not None:
            self._drop_windows()
            self._stay_full("another optimizer steps its parameters; detach, and attach with that one")

    # --- when it cannot be ---

    def _guarded(self, action: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """Run something of ours so that no exception of it reaches the training loop."""
        try:
            action(*args, **kwargs)
        except Exception as error:
            self._drop_windows()
            _log.warning("greend: %s; the job goes on with the untouched model", error, exc_info=True)
            self._stay_full(f"{type(error).__name__}: {error}")

    def _drop_windows(self) -> None:
        windows, self._windows = self._windows, None
        if windows is not None:
            with contextlib.suppress(Exception):
                windows.restore(keep_gradients=True)

    def _stay_full(self, reason: str) -> None:
        # Hooks stay: one of them may be the caller, and steps are still to be counted.
        self._looking, self._call = False, None
        self._costs, self._level = [1.0], 0
        self._report = [f"stays full: {reason}", *(line for line in self._report if "seen yet" not in line)]
        self._announce()

    def _announce(self) -> None:
        if self._link is not None:
            self._link.announce(self._costs, self._report)


_living: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Agent]] = weakref.WeakKeyDictionary()


def agent_of(model: nn.Module) -> Agent | None:
    """Return the agent that follows a model."""
    reference = _living.get(model)
    return reference() if reference is not None else None


def remember(model: nn.Module, agent: Agent) -> None:
    """Note which agent follows a model."""
    _living[model] = weakref.ref(agent)
