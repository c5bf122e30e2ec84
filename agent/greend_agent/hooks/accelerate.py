"""Accelerate: `attach(model, optimizer)` on what `accelerator.prepare` has returned."""

from __future__ import annotations

from typing import Any

from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.optim import Optimizer

from greend_agent.agent import Agent
from greend_agent.attach import attach as attach_plainly


def attach(model: nn.Module, optimizer: Optimizer, **options: Any) -> Agent:
    """Let greend follow a prepared model and optimizer, with the options of `greend_agent.attach`.

    Where the job is asked to stop, the loop can, on all processes after the same step::

        if agent.should_stop:
            accelerator.save_state(folder)
            break

    Steps that accelerate leaves out, to accumulate gradients or after an overflow, are none to greend.
    Raises TypeError when the optimizer has not been through `accelerator.prepare`, of which the model that
    is called may then be another, and whatever `greend_agent.attach` raises.
    """
    if not isinstance(optimizer, AcceleratedOptimizer):
        raise TypeError(f"attach: give what accelerator.prepare returned, not a {type(optimizer).__name__}")
    return attach_plainly(model, optimizer, **options)
