"""As much computation as each input needs: a low level answers first, the top where that one is in doubt.

Needs no exit heads and no other weights: a model that was trained at all its levels is its own small model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from greend_agent.agent import Agent
from greend_agent.plan.probe import tensors_in


@dataclass(frozen=True, slots=True, eq=False)
class Cascade:
    """The answers to a batch, and to which samples the top gave them."""

    logits: torch.Tensor
    """(batch, classes): of the top where `escalated`, of the low level elsewhere."""
    escalated: torch.Tensor
    """(batch,) of bool."""

    def cost(self, agent: Agent, level: int = 0) -> float:
        """Return the FLOPs that were spent, relative to asking the top about every sample."""
        share = float(self.escalated.float().mean()) if self.escalated.numel() else 0.0
        return agent.costs[level] + share


def cascade(agent: Agent, x: torch.Tensor, threshold: float, *, level: int = 0) -> Cascade:
    """Run a classifier at a low level, and again at the top for the samples of which it is not sure.

    x: the input, (batch, ...); the model returns logits of shape (batch, classes), or a structure whose
    first tensor these are. A sample is passed on when the largest of its softmax probabilities is below
    `threshold`: nothing is at 0, everything above 1. The model runs in eval mode, without gradients, and is
    afterwards in the modes it was in. Raises what `Agent.at` does.
    """
    logits = _logits(agent, x, level)
    escalated = logits.softmax(dim=-1).amax(dim=-1) < threshold
    if escalated.any():
        logits[escalated] = _logits(agent, x[escalated], len(agent.costs) - 1)
    return Cascade(logits, escalated)


def _logits(agent: Agent, x: torch.Tensor, level: int) -> torch.Tensor:
    model = agent.model
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with agent.at(level), torch.no_grad():
            return tensors_in(model(x))[0].clone()
    finally:
        for module, mode in modes:
            module.training = mode
