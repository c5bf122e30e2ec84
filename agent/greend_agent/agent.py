"""What the user holds of greend in a training process: what the levels are, and what is asked of them."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from greend_agent.compiling import original
from greend_agent.link import Link
from greend_agent.loop import Loop
from greend_agent.norm.recalibration import recalibrate
from greend_agent.signals import Signals
from greend_agent.times import LevelFigures


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
        levels: int | Sequence[float] = 4,
        knobs: Collection[str] | None = None,
        steps: int | None = None,
        already: int = 0,
        signals: Signals | None = None,
        link: Link | None = None,
        idle: str | None = None,
        on_stop: Callable[[], object] | None = None,
    ) -> None:
        self._model, self._link = model, link
        self._signals = signals or Signals()
        self._loop = Loop(
            model,
            optimizer,
            self._signals,
            levels=levels,
            knobs=knobs,
            total=steps,
            already=already,
            announce=link.announce if link is not None else lambda costs, report: None,
            on_stop=on_stop,
        )
        self._loop.holder = self  # nobody else need keep an agent: it lives as long as the hooks on the model
        if idle:
            self._loop.report = [f"not attached: {idle}"]
        if link is not None:
            # At exit the link sends the last progress itself.
            weakref.finalize(self, link.close).atexit = False

    def start(self) -> None:
        """Hang the hooks on the model and the optimizer."""
        self._loop.start()

    @property
    def model(self) -> nn.Module:
        """The module that is narrowed: what the training loop calls, without what wraps it."""
        return self._loop.engine.model

    @property
    def level(self) -> int:
        """The level in force for the step under way, or the last one."""
        return self._loop.level

    @property
    def want(self) -> int:
        """The level that the next step will have."""
        return self._loop.want

    @property
    def step_count(self) -> int:
        """Optimizer steps seen so far."""
        return self._loop.steps

    @property
    def costs(self) -> list[float]:
        """Estimated cost of each level, least first, relative to the untouched model."""
        return list(self._loop.costs)

    @property
    def table(self) -> list[LevelFigures]:
        """What is known about each level, least first."""
        return self._loop.times.table(self._loop.costs, self._signals.step_j)

    def pace(self, share: float = 1.0, *, power_w: float | None = None, step_j: float | None = None) -> None:
        """Run at a share of full speed from the next step on, or at an average power in watts.

        The loop waits between its steps: for a share never longer than 5 s for one, for a power at most 99
        times what the step took. The next directive overrides both. `step_j`: joules of a step, for the
        power; without it, those that the daemon has measured.
        Raises ValueError where the share is not in (0, 1], or the power not above 0.
        """
        if not 0 < share <= 1 or (power_w is not None and not power_w > 0):
            raise ValueError(f"pace: 0 < share <= 1 and power_w > 0 are expected, not {share}, {power_w}")
        self._signals.ask(pace=share, power_w=power_w, step_j=step_j)

    def request(self, level: int) -> None:
        """Ask for a level from the next step on, within those that there are; a directive overrides it."""
        self._signals.ask(level=max(0, level))
        if self.want < self._loop.top:
            self._loop.catch()

    @property
    def should_stop(self) -> bool:
        """Whether the job is asked to save a checkpoint and end: to be read between two steps.

        ::

            if agent.should_stop:
                torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
                break

        Of several ranks all are asked after the same step. Where nobody reads it and there is no `on_stop`,
        the job runs on at level 0.
        """
        self._loop.orders.stop_is_read = True
        return self._loop.engine.stops

    def report(self) -> list[str]:
        """Return what was found, proven and rejected in the model, a line each."""
        return list(self._loop.report)

    def detach(self) -> None:
        """Give the model back: windows off, hooks removed, the daemon no longer followed."""
        self._loop.stop()
        if self._link is not None:
            self._link.close()
        _living.pop(original(self._model), None)

    def warm(self) -> None:
        """Compile every level at the beginning of the next step, or of the first one that has levels.

        What torch.compile has made of the model is made again for each level, when that is first entered;
        this does it for all of them at once. Each runs once, forward and backward, on the batch of that step;
        nothing of it remains but the graphs. A model that is not compiled has nothing to be warmed.
        """
        self._loop.warming = True

    def rank(self) -> None:
        """Put the units that matter most first, where low levels keep them, after the next step that can.

        The model computes what it did, and trains as it would have, up to rounding; checkpoints stay valid
        for the plain model. But its weights change places: what was copied from it before (an average over
        training, a snapshot to compare with) is in the old order. On several ranks all have to ask for it.
        """
        self._loop.rank_next()

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Inside, the model has its original shapes, also between forward and step."""
        self._loop.full_depth += 1
        try:
            with self._loop.windows.lifted() if self._loop.windows is not None else contextlib.nullcontext():
                yield
        finally:
            self._loop.full_depth -= 1

    @contextlib.contextmanager
    def at(self, level: int) -> Iterator[None]:
        """Inside, the model is what it is at a level, to be evaluated or copied; not to be trained.

        Raises ValueError for a level that there is not, and RuntimeError between forward and step.
        """
        if not 0 <= level <= self._loop.top:
            raise ValueError(f"at: there is no level {level}, only 0 to {self._loop.top}")
        if self._loop.open:
            raise RuntimeError("at: a step is under way; do this between the optimizer's step and a forward")
        self._loop.open = True
        try:
            windows = self._loop.windows
            with windows.visiting(level) if windows is not None else contextlib.nullcontext():
                yield
        finally:
            self._loop.open = False

    def calibrate(
        self,
        loader: Iterable[Any],
        level: int | None = None,
        *,
        batches: int | None = None,
        forward: Callable[[Any], object] | None = None,
    ) -> None:
        """Take the running statistics of batch norm at a level, or at each, from a set of data.

        At the top these are the model's own buffers. `loader`, `batches` and `forward` are as for
        `recalibrate`; for all levels `loader` is gone through once for each. Raises what `at` and
        `recalibrate` do.
        """
        for one in range(self._loop.top + 1) if level is None else (level,):
            with self.at(one):
                recalibrate(self._loop.engine.model, loader, batches=batches, forward=forward)
                if self._loop.windows is not None:
                    self._loop.windows.banks.calibrated(one)

    def state_dict(self) -> dict[str, Any]:
        """Return what the agent has beside the model: the level asked for, and each level's batch norm."""
        windows = self._loop.windows
        banks = windows.banks.state_dict() if windows is not None else dict(self._loop.saved)
        return {"level": self._signals.order.level, "banks": banks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what another agent of this model had; the model's own state is to be loaded before."""
        self.request(state["level"])
        self._loop.saved = state["banks"]
        if self._loop.windows is not None:
            self._loop.abandon()
            self._loop.windows.banks.load_state_dict(self._loop.saved)


_living: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Agent]] = weakref.WeakKeyDictionary()


def agent_of(model: nn.Module) -> Agent | None:
    """Return the agent that follows a model, or what torch.compile made of it."""
    reference = _living.get(original(model))
    return reference() if reference is not None else None


def remember(model: nn.Module, agent: Agent) -> None:
    """Note which agent follows a model."""
    _living[original(model)] = weakref.ref(agent)
