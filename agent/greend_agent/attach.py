"""Attach once, and the rest is discovered in the first steps."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from greend import wire
from greend.choice import checked_knobs, checked_levels
from greend_agent.agent import Agent, agent_of, remember
from greend_agent.link import Link
from greend_agent.signals import Signals


def attach(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    levels: int | Sequence[float] = 4,
    knobs: Collection[str] | None = None,
    steps: int | None = None,
    already: int = 0,
    socket: str | os.PathLike[str] | None = None,
    name: str | None = None,
    on_stop: Callable[[], object] | None = None,
) -> Agent:
    """Let greend follow a model in training, and return the agent that does.

    The first training forward of `model` (call the very object given here) and the step after it show what
    can be narrowed; from then on the daemon, or `Agent.request`, may ask for a lower of the `levels`. At the
    top level, and without a daemon, training is bit for bit what it would be. `levels` is how many there are
    to be, or what each is to cost relative to the untouched model, e.g. [0.25, 0.5, 1]; `knobs` what may be
    turned down, e.g. ["ffn", "heads", "depth"], by default hidden widths (ffn, heads and channels). `steps`
    is how many optimizer steps the job will make, where you know; `already` how many it has made before.

    `on_stop` is called once when the job is asked to stop, in the optimizer's step after that, with the whole
    model: to save a checkpoint, and to end the loop, if you like by an exception. Without it, read
    `Agent.should_stop`.

    After a step at a lower level the gradients of narrowed parameters have zeros outside of the window.

    Raises ValueError for levels that there cannot be and knobs that there are not, TypeError for something
    that is no optimizer, and GreendError only with GREEND_REQUIRED=1 in the environment, when the daemon
    cannot be reached.
    """
    levels, knobs = checked_levels(levels), checked_knobs(knobs)
    living = agent_of(model)
    if living is not None:
        return living
    if os.environ.get(wire.ENV_DISABLED) == "1":
        return Agent(model, optimizer, idle=f"{wire.ENV_DISABLED}=1 in the environment")
    signals = Signals()
    path = Path(socket) if socket is not None else None
    link = Link(signals, path, job=os.environ.get(wire.ENV_JOB) or None, name=name, steps=steps)
    if os.environ.get(wire.ENV_REQUIRED) == "1":
        link.register()
    agent = Agent(
        model,
        unwrapped(optimizer),
        levels=levels,
        knobs=knobs,
        steps=steps,
        already=already,
        signals=signals,
        link=link,
        on_stop=on_stop,
    )
    agent.start()
    remember(model, agent)
    link.start()
    return agent


@contextlib.contextmanager
def full(model: nn.Module) -> Iterator[None]:
    """Inside, a model has its original shapes, also in mid-step: to evaluate, copy or save it whole.

    ::

        with greend_agent.full(model):
            torch.save(model, path)
    """
    agent = agent_of(model)
    with agent.full() if agent is not None else contextlib.nullcontext():
        yield


def unwrapped(optimizer: Any) -> Optimizer:
    """Return the optimizer whose hooks are called: Accelerate's is one that never ran Optimizer.__init__.

    Raises TypeError where there is none.
    """
    while not hasattr(optimizer, "_optimizer_step_post_hooks") and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"attach: a torch.optim.Optimizer was expected, not {type(optimizer).__name__}")
    return optimizer
