"""Models and optimizers that are only counted, never narrowed, and why."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

_WRAPPERS = {
    "DataParallel": "replicas are made anew in each forward",
    "DistributedDataParallel": "its reducer holds on to the shapes it was built with",
    "FullyShardedDataParallel": "its parameters are flat shards",
    "OptimizedModule": "a compiled model",
}


def of_model(model: nn.Module) -> str | None:
    """Why the model is left alone; None when it need not be."""
    name = type(model).__name__
    if name in _WRAPPERS:
        return f"{name}: {_WRAPPERS[name]}"
    if any(isinstance(m, torch.jit.ScriptModule) for m in model.modules()):
        return "TorchScript: its graph is fixed"
    if _processes() > 1:
        return "several processes train it, which would have to change level together"
    return None


def _processes() -> int:
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if together else 1


def of_optimizer(optimizer: Optimizer) -> str | None:
    """Why an optimizer's state cannot be windowed; None when it can.

    One tensor for the whole model (L-BFGS) or factors of a moment (Adafactor) have no place for a window,
    and the state of one parameter may stand for all: any such tensor refuses them all.
    """
    kind = type(optimizer).__name__
    for param, state in optimizer.state.items():
        for name, value in state.items() if isinstance(state, dict) else ():
            if isinstance(value, torch.Tensor):
                if value.numel() > 1 and (not isinstance(param, torch.Tensor) or value.shape != param.shape):
                    shape = tuple(param.shape) if isinstance(param, torch.Tensor) else ()
                    return f"{kind}: state {name!r} has shape {tuple(value.shape)}, its parameter {shape}"
            elif isinstance(value, (list, tuple, dict)) and value:
                return f"{kind}: state {name!r} is a {type(value).__name__}"
    return None
