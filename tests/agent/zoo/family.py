"""A family of models: how to build one, how it is called in training, and what should be found in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Family:
    """One family; `knobs` are the kinds of dial that a plan of it has to have."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], Inputs]
    """The arguments of a training forward for a seed; other seeds give other batches, of other sizes too."""
    knobs: frozenset[str] = frozenset()
    double: bool = True
    """Whether it runs in double precision."""

    def model(self, seed: int = 0) -> nn.Module:
        """Return the model in training mode; the same seed gives the same weights."""
        torch.manual_seed(seed)
        model = self.build()
        lively(model)
        return model.train()


def lively(model: nn.Module) -> None:
    """Make the statistics and scales of the norms, and the zeros of fresh biases, as training leaves them.

    A fresh batch norm has mean 0, variance 1, scale 1 and shift 0 in every channel, and a wrong channel
    could not be told from the right one.
    """
    generator = torch.Generator().manual_seed(7)

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator, dtype=like.dtype)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                if module.running_mean is not None and module.running_var is not None:
                    module.running_mean.copy_(uniform(module.running_mean, -0.3, 0.3))
                    module.running_var.copy_(uniform(module.running_var, 0.5, 2.0))
                if module.weight is not None:
                    module.weight.copy_(uniform(module.weight, 0.5, 1.5))
        for param in model.parameters():
            if param.dim() == 1 and not param.any():
                param.copy_(uniform(param, -0.1, 0.1))


def normal(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Return standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def integers(below: int, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Return whole numbers from 0."""
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


def batch_size(seed: int) -> int:
    """Return 2, 3 or 4: no plan may hold for one batch size only."""
    return 2 + seed % 3


def tensors(output: Any) -> list[torch.Tensor]:
    """Return the floating-point tensors of whatever a model returns."""
    if isinstance(output, torch.Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, (tuple, list)):
        return [tensor for item in output for tensor in tensors(item)]
    return []


def training_loss(output: Any) -> torch.Tensor:
    """Return the model's own loss, or the mean square of what it returns."""
    loss = getattr(output, "loss", None)
    if isinstance(loss, torch.Tensor) and bool(loss.detach().isfinite()):
        return loss
    return torch.stack([t.float().square().mean() for t in tensors(output)]).sum()
