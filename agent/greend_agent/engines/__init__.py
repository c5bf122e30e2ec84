"""How the processes that train one model keep to one level: the part that differs with how it is run."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from greend_agent import refusals
from greend_agent.engines import ddp
from greend_agent.engines.compiled import engine_of
from greend_agent.engines.local import Engine

__all__ = ["Engine", "engine_for"]


def engine_for(model: nn.Module, optimizer: Optimizer) -> Engine | str:
    """Return what runs the model, or why the model is left alone."""
    compiled = engine_of(model)
    found = compiled if isinstance(compiled, str) else refusals.of_model(model) or compiled
    if found is not None:
        return found
    if isinstance(model, DistributedDataParallel):
        return ddp.refusal(model, optimizer) or ddp.DDP(model)
    if any(map(refusals.is_sharded, model.modules())):
        from greend_agent.engines import fsdp2  # distributed tensors cost an import

        return fsdp2.refusal(model) or fsdp2.FSDP2(model, optimizer)
    return Engine(model)
