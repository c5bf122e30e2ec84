"""Models and optimizers that are only counted, never narrowed, and why."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

_WRAPPERS = {
    "DataParallel": "replicas are made anew in each forward",
    "FullyShardedDataParallel": "its parameters are flat shards",
}


def of_model(model: nn.Module) -> str | None:
    """Why the model is left alone; None when it need not be."""
    for module in model.modules():
        name = type(module).__name__
        if name in _WRAPPERS:
            return f"{name}: {_WRAPPERS[name]}"
    if any(isinstance(m, torch.jit.ScriptModule) for m in model.modules()):
        return "TorchScript: its graph is fixed"
    wrapper = torch.nn.parallel.DistributedDataParallel
    inside = any(isinstance(m, wrapper) for m in model.modules() if m is not model)
    together = isinstance(model, wrapper) or any(map(is_sharded, model.modules()))
    if inside or (processes() > 1 and not together):
        return (
            "several processes train it, which have to change level together: attach the "
            "DistributedDataParallel wrapper itself, and call that"
        )
    return None


def is_sharded(module: nn.Module) -> bool:
    """Whether FSDP2's `fully_shard` was called on a module; by name, as importing it takes long."""
    return any(kind.__name__ == "FSDPModule" for kind in type(module).__mro__)


def processes() -> int:
    """Return how many processes train together."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if together else 1


def of_optimizer(optimizer: Optimizer) -> str | None:
    """Why an optimizer's state cannot be windowed; None when it can. It must have stepped once.

    One tensor for the whole model (L-BFGS) or factors of a moment (Adafactor) have no place for a window,
    and the state of one parameter may stand for all: any such tensor refuses them all. What leaves tensors
    as they are (depth, resolution, precision) may still be turned down: see `of_sitting_out`.
    """
    kind = type(optimizer).__name__
    for param, state in optimizer.state.items():
        own = tuple(param.shape) if isinstance(param, torch.Tensor) else ()
        for name, value in state.items() if isinstance(state, dict) else ():
            if isinstance(value, torch.Tensor) and value.numel() > 1 and tuple(value.shape) != own:
                return f"{kind}: state {name!r} has shape {tuple(value.shape)}, its parameter {own}"
    return of_sitting_out(optimizer)


def of_sitting_out(optimizer: Optimizer) -> str | None:
    """Why no parameter can be left out of a step of an optimizer; None when each is stepped on its own.

    A history of the whole model (L-BFGS) gives one direction for all parameters, also for those without a
    gradient.
    """
    kind = type(optimizer).__name__
    if isinstance(optimizer, torch.optim.LBFGS):
        return (
            f"{kind}: one direction for the whole model, from a state 'old_dirs' of all parameters together"
        )
    for state in optimizer.state.values():
        for name, value in state.items() if isinstance(state, dict) else ():
            if isinstance(value, (list, tuple, dict)) and value:
                return f"{kind}: state {name!r} is a {type(value).__name__}"
    return None
