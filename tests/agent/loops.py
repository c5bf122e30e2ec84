"""A training loop in the middle of things."""

from __future__ import annotations

import torch
from torch import nn

import greend_agent

from .nets import OPTIMIZERS, batches, net, step


def lowered(kind: str = "adamw", level: int = 0):
    """A model that has been attached, planned, and asked for a level."""
    model = net()
    optimizer = OPTIMIZERS[kind](model.parameters())
    agent = greend_agent.attach(model, optimizer)
    step(model, optimizer, batches(1)[0])
    assert len(agent.costs) == 4, agent.report()
    agent.request(level)
    return model, optimizer, agent


def backward(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(batches(1)[0]).square().mean().backward()
