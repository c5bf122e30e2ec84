"""How the processes that train one model keep to one level: the part that differs with how it is run."""

from __future__ import annotations

from torch import nn

from greend_agent import refusals
from greend_agent.engines.local import Engine

__all__ = ["Engine", "engine_for"]


def engine_for(model: nn.Module) -> Engine | str:
    """Return what runs the model, or why the model is left alone."""
    return refusals.of_model(model) or Engine(model)
