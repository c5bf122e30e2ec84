"""Attach once, and the rest is discovered in the first steps."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from greend import wire
from greend_agent.agent import Agent, agent_of, remember
from greend_agent.link import Link
from greend_agent.signals import Signals


def attach(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    levels: int = 4,
    steps: int | None = None,
    already: int = 0,
    socket: str | os.PathLike[str] | None = None,
    name: str | None = None,
) -> Agent:
    """Let greend follow a model in training, and return the agent that does.

    The first training forward of `model` (call the very object given here) and the step after it show what
    can be narrowed; from then on the daemon, or `Agent.request`, may ask for a lower of the `levels`. At the
    top level, and without a daemon, training is bit for bit what it would be. `steps` is how many optimizer
    steps the job will make, where you know; `already` how many it has made before this call.

    At a lower level the gradients of narrowed parameters are gone (None) after the optimizer's step: read
    them before it.

    Raises GreendError only with GREEND_REQUIRED=1 in the environment, when the daemon cannot be reached.
    """
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
    agent = Agent(model, _with_hooks(optimizer), levels=levels, already=already, signals=signals, link=link)
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


def _with_hooks(optimizer: Any) -> Optimizer:
    # Accelerate wraps the optimizer in one that never ran Optimizer.__init__.
    while not hasattr(optimizer, "_optimizer_step_post_hooks") and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"attach: a torch.optim.Optimizer was expected, not {type(optimizer).__name__}")
    return optimizer
