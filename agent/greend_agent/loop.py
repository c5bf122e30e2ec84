"""The way of one step: a level is chosen at its first forward, and the model is full again at its end."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from greend.clock import NS, mono_ns
from greend_agent.compiling import eagerly
from greend_agent.dial import Dial
from greend_agent.engines import Engine, engine_for
from greend_agent.engines.compiled import elsewhere
from greend_agent.hook import Hook
from greend_agent.norm.banked import BankedWindows
from greend_agent.orders import Orders
from greend_agent.others import Others
from greend_agent.plan import Call, Plan
from greend_agent.plan.rank import rank
from greend_agent.planning import Lack, fitted, planned
from greend_agent.signals import Position, Signals
from greend_agent.times import Times
from greend_agent.windows.asleep import wake_all
from greend_agent.windows.saving import Saving
from greend_agent.windows.window import Refused

_log = logging.getLogger("greend")

_UNSEEN = "no training forward of the model, with the optimizer's step behind it, has been seen"

_OF_SHAPES = re.compile(
    r"shape|size|dimension|mat1|mismatch|index|out of (range|bounds)|expected", re.IGNORECASE
)
"""What an error says that comes of a narrower width. Any other is not for us to try again."""


class Loop:
    """The hooks on one model and its optimizer. Nothing that fails in here reaches the training loop."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        signals: Signals,
        *,
        levels: int | Sequence[float],
        knobs: Collection[str] | None,
        total: int | None,
        already: int,
        announce: Callable[[list[float], list[str]], None],
        on_stop: Callable[[], object] | None = None,
    ) -> None:
        self._model, self._optimizer, self._signals = model, optimizer, signals
        self._levels, self._knobs, self._total, self._announce = levels, knobs, total, announce
        self.engine = Engine(model)
        self.windows: BankedWindows | None = None
        self.orders, self.times = Orders(signals, self.engine, self._say, on_stop), Times()
        self.steps, self.level, self.costs = already, 0, [1.0]
        self.report: list[str] = []
        self.open = False
        """Whether a step is under way: the level of it has been chosen."""
        self.full_depth = 0
        """Above 0, whatever is asked for, a step begins at full."""
        self.warming = False
        """Whether all levels are to be compiled at the beginning of the next step."""
        self.saved: Mapping[int, Any] = {}
        """Batch norm statistics of an earlier run, for windows that are still to come."""
        self.holder: object = None
        """Lives as long as the hooks do."""
        self._dials: Sequence[Dial] = ()
        self._call: Call | None = None
        self._looking = self._ranking = self._catching = False
        self._abandoned: int | None = None  # the level of the forward that has just raised; None: the top
        self._missed = 0  # steps in a row of which no forward was seen
        self._evaluation = contextlib.ExitStack()  # what is lifted while the model is evaluated in mid-step
        self._handles: list[Any] = []
        self._doors: list[Any] = []  # the hooks by which the model's forward is seen

    @property
    def top(self) -> int:
        """The level of the untouched model."""
        return len(self.costs) - 1

    @property
    def want(self) -> int:
        """The level that the next step is asked to have, within those that there are."""
        return max(0, min(self.orders.pace.due(self.steps).level, self.top))

    def start(self) -> None:
        """Hang the hooks on the model and the optimizer."""
        self._handles.append(self._optimizer.register_step_post_hook(self._on_step))
        engine = engine_for(self._model, self._optimizer)
        if isinstance(engine, str):
            self._stay_full(engine)
            return
        self._follow(engine)
        self._looking = True
        self.report = [f"{_UNSEEN} yet"]

    def _follow(self, engine: Engine) -> None:
        for handle in self._doors:
            handle.remove()
        self.engine = self.orders.engine = engine
        self._doors = engine.on_forward(Hook(self._on_forward))
        engine.abandon = functools.partial(self._guarded, self.abandon)

    def stop(self) -> None:
        """Give the model back: windows off, hooks removed."""
        self.orders.pace.stop()
        self._drop_windows()
        for handle in (*self._handles, *self._doors):
            handle.remove()
        self._handles.clear()
        self._doors.clear()
        self._looking, self._call = False, None
        self.costs, self.level, self.open = [1.0], 0, False
        self.engine.close()

    def rank_next(self) -> None:
        """Put the units that matter most first, after the next step of which the forward is seen."""
        self._ranking = self._looking = True

    def catch(self) -> None:
        """See how forwards end. Not before it is needed: it is one more hook on each of them."""
        if not self._catching and self.windows is not None:
            self._catching = True
            self._handles += self.engine.on_forward_end(Hook(self._on_forward_end), self._try_again)

    # --- forward ---

    def _on_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Nothing of ours belongs in a compiled graph; first, as each attribute read would be a guard in it.
        if torch.compiler.is_compiling():
            wake_all()
            return
        if not module.training:
            if self._catching and not torch.is_grad_enabled():
                self._guarded(self._evaluate, module)
            return
        if self.open or _in_backward():
            return
        if module in self.engine.callers and torch.is_grad_enabled():
            self._guarded(self._begin, args, kwargs)
        elif self.windows is not None:
            self._guarded(self.windows.wake)

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        order = self.orders.obey(self.level, self.steps, self.costs)
        self.open, self._missed = True, 0
        if self.warming and self.windows is not None:
            self.warming = False
            self.engine.warm(self.windows, args, kwargs)
        level = top = self.top
        if self.windows is not None:
            self.engine.left = None if self._total is None else max(0, self._total - self.steps)
            wanted = max(0, min(order.level, top))
            level = self.engine.level(top if self.full_depth else wanted, top)
            if self.full_depth:
                level = top  # whatever other processes do: inside `full` the shapes are the original ones
            if level < top:
                self.catch()
            level = self._enter(self.windows, level)
            if level < top:
                self.engine.lowered(level)
        else:
            self.engine.looks_on()
        self.engine.began(level)
        self.level, self._abandoned = level, None
        if self._looking:
            self._looking, self._call = False, self.engine.call(args, kwargs)

    def _enter(self, windows: BankedWindows, level: int) -> int:
        """Put the windows of a level on. One that raises is refused for good, and the one before is kept."""
        level = self.orders.instead(level)
        if level == self.level:
            windows.apply(level)
            return level
        began_ns = mono_ns()
        try:
            windows.apply(level)
        except Refused:
            raise  # it is about a tensor, at whatever level
        except Exception as error:
            if level == windows.top or not self.engine.alone:
                raise
            self.orders.refuse(level, self.level, f"{type(error).__name__}: {error}")
            level = self.level
            windows.apply(level)
        self.orders.switch_s = (mono_ns() - began_ns) / NS
        return level

    def _evaluate(self, module: nn.Module) -> None:
        """Evaluate the whole model, also between the forward and the step of a lower level."""
        windows = self.windows
        if windows is None or module not in self.engine.callers:
            return
        if windows.level == windows.top:
            windows.wake()
        else:
            self._evaluation.enter_context(windows.lifted())

    def _on_forward_end(self, module: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        if not module.training and module in self.engine.callers:
            self._guarded(self._evaluation.close)
        # Called also when the forward has raised; nobody knows then whether a step will come.
        if output is None and module in self.engine.callers and sys.exc_info()[0] is not None:
            self._guarded(self.abandon)

    def _try_again(self, call: Callable[[], Any]) -> Any:
        """Make a forward. One that raises at a lower level is made once more at full.

        If it does not raise there, it was the level: code that the proof has not seen, such as a branch that
        few batches take. Then there are no more levels.
        """
        try:
            return call()
        except Exception as error:
            low, self._abandoned = self._abandoned, None
            if low is None or not _OF_SHAPES.search(str(error)):
                raise
            self.full_depth += 1
            try:
                output = call()
            except BaseException:
                self.open = self._has_gradients
                raise
            finally:
                self.full_depth -= 1
            self._guarded(self._give_up, f"at level {low} the forward raised {type(error).__name__}: {error}")
            return output

    def abandon(self) -> None:
        """Go on at full until the step, with the gradients that are already there."""
        windows = self.windows
        if windows is not None and windows.level != windows.top:
            self._abandoned = windows.level
            self.open = self._has_gradients
            self._make_whole(windows)
            self.level = windows.top

    @property
    def _has_gradients(self) -> bool:
        return any(p.grad is not None for p in self._model.parameters())

    # --- the optimizer's step ---

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        return self._guarded(self.windows.before_step, args, kwargs) if self.windows is not None else None

    def _on_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling():
            return  # a step that is compiled as a whole hides what is in it
        self.steps += 1
        self._guarded(self.engine.stepped)
        if not self.open:
            self._guarded(self._look_again)
        now_ns = mono_ns()
        self.times.stepped(self.level, now_ns - self.orders.pace.waited_ns)
        if self.orders.answered is not self.orders.pace.order:
            self.orders.acknowledge()
        self._signals.position = Position(self.steps, self.level, now_ns)
        if (windows := self.windows) is not None:
            self._guarded(windows.stepped)
            if windows.level != windows.top:
                self._guarded(self._restore)
            if self._ranking and self._call is not None:
                self._guarded(self._rank)
            if self.want < self.top:
                self._guarded(self.catch)
        elif self._call is not None:
            self._guarded(self._plan)
        seen, self.open = self.open, False  # not before: planning calls the model
        if not seen:
            # There was no forward before which it could have been.
            self._guarded(self.orders.obey, self.level, self.steps, self.costs)
        if self.engine.stops:
            self.orders.stop()  # not guarded: what the user's own raises may be meant to end the loop

    def _restore(self) -> None:
        if self.windows is not None:
            # What keeps processes in step reads parameters from C++, where nobody can tell.
            (self.windows.rest if self.engine.alone else self.windows.restore)()
            self.engine.restored()

    def _look_again(self) -> None:
        # The training loop has stepped without calling what was attached.
        self._missed += 1
        if self.windows is not None or not self._looking:
            return
        if self._missed == 2 and (engine := elsewhere(self._model)) is not None:
            self._follow(engine)
        elif self._missed == 4:
            self.report = [
                f"{_UNSEEN} in {self._missed} steps: what was attached is not called in training mode, or is "
                "called in a function given to torch.compile; compile the model instead"
            ]
            self._announce(self.costs, self.report)

    # --- between two steps ---

    def _plan(self) -> None:
        call, self._call = self._call, None
        plan = planned(self.engine, self._optimizer, call, levels=self._levels, knobs=self._knobs)
        if isinstance(plan, Lack):
            self._stay_full(plan.reason, plan.report)
        else:
            self._install(plan)

    def _install(self, plan: Plan) -> None:
        self.windows, handles = fitted(self.engine, self._optimizer, plan)
        self.windows.banks.load_state_dict(self.saved)
        self.costs, self.times = list(plan.table.costs), Times()
        self.level = self.top
        self.report = [*plan.report, *self.engine.notes]
        self._dials, self._looking = plan.dials, self._ranking
        self._handles += [
            *handles,
            Saving(self.engine.model, self._optimizer, self.windows, self._guarded),
            Others(self._optimizer, self.windows.tensors, self._on_other_step),
            self._optimizer.register_step_pre_hook(self._before_step),
        ]
        self._announce(self.costs, self.report)

    def _rank(self) -> None:
        call, self._call, self._ranking = self.engine.share(self._call), None, False
        if self.windows is not None and call is not None:
            # What was outside the windows is brought up to date first: afterwards it is somewhere else.
            self.windows.settle(self.windows.top)
            self.windows.end_rest()
            with eagerly():
                self.report.append(rank(self.engine.model, call, self._dials, self._optimizer))
            self.windows.forget()
            self.windows.banks.forget()
            self._announce(self.costs, self.report)

    # --- when it cannot be ---

    def _guarded(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run something of ours so that no exception of it reaches the training loop: then it gives None."""
        try:
            return action(*args, **kwargs)
        except Exception as error:
            self.engine.failed()
            _log.warning("greend: %s; the job goes on with the untouched model", error, exc_info=True)
            self._give_up(f"{type(error).__name__}: {error}")
            return None

    def _on_other_step(self) -> None:
        if self.windows is not None:
            self._give_up("another optimizer steps its parameters; detach, and attach with that one")

    def _give_up(self, reason: str) -> None:
        self._drop_windows()
        self.orders.give_up(self.top, reason)
        self._stay_full(reason)

    def _say(self, line: str) -> None:
        """Add a line to the report, once."""
        if line not in self.report:
            self.report.append(line)
            self._announce(self.costs, self.report)

    def _drop_windows(self) -> None:
        windows, self.windows = self.windows, None
        if windows is not None:
            with contextlib.suppress(Exception):
                self._make_whole(windows)

    def _make_whole(self, windows: BankedWindows) -> None:
        """Take windows off for good, with the gradients of a step that is still to come."""
        try:
            windows.restore(keep_gradients=True)
            windows.settle(windows.top)
        finally:
            self.engine.restored()

    def _stay_full(self, reason: str, found: Sequence[str] = ()) -> None:
        # Hooks stay: one of them may be the caller, and steps are still to be counted.
        self._looking, self._call = False, None
        self.costs, self.level, self.times = [1.0], 0, Times()
        before = [line for line in found or self.report if "seen yet" not in line]
        self.report = [f"stays full: {reason}", *before]
        self._announce(self.costs, self.report)


def _in_backward() -> bool:
    """Whether a backward is running: then a forward is made anew, for a checkpoint, and not a step begun."""
    task = getattr(torch._C, "_current_graph_task_id", None)  # private
    return task is not None and task() != -1
