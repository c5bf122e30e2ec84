"""What may lie in the middle of a hidden width: what is done to each unit, what mixes or counts units."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from .spec import Spec

T = torch.Tensor
Middle = Callable[[Spec], nn.Module]


class Own(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[T], T], training_only: bool = False) -> None:
        super().__init__()
        self.function, self.training_only = function, training_only

    def forward(self, x: T) -> T:
        return self.function(x) if self.training or not self.training_only else x


class PerUnit(nn.Module):
    """A number for each unit, learned or fixed, to be added or multiplied."""

    def __init__(self, spec: Spec, add: bool = False, learned: bool = True) -> None:
        super().__init__()
        numbers = 1 + 0.3 * torch.randn(spec.channels)
        self.add = add
        if learned:
            self.numbers = nn.Parameter(numbers)
        else:
            self.register_buffer("numbers", numbers)

    def forward(self, x: T) -> T:
        return x + self.numbers if self.add else x * self.numbers


class SqueezeExcite(nn.Module):
    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.at = spec.features
        self.down, self.up = nn.Linear(spec.hidden, 4), nn.Linear(4, spec.hidden)

    def forward(self, x: T) -> T:
        pooled = x.movedim(self.at, -1).flatten(1, -2).mean(1) if x.dim() > 2 else x
        gate = self.up(F.relu(self.down(pooled))).sigmoid()
        while gate.dim() < x.dim():
            gate = gate.unsqueeze(1 if self.at == -1 else -1)
        return x * gate


class RMSNorm(nn.Module):
    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.at, self.weight = spec.features, nn.Parameter(1 + 0.3 * torch.randn(spec.channels))

    def forward(self, x: T) -> T:
        return x * torch.rsqrt(x.square().mean(self.at, keepdim=True) + 1e-6) * self.weight


def _last(spec: Spec, function: Callable[[T], T]) -> nn.Module:
    """Do something with the features as the last dimension."""
    return Own(lambda x: function(x.movedim(spec.features, -1)).movedim(-1, spec.features))


def _batch_norm(spec: Spec, **options: bool) -> nn.Module:
    norm = (nn.BatchNorm2d if spec.kind == "image" else nn.BatchNorm1d)(spec.hidden, **options)
    if spec.kind != "sequence":
        return norm
    return nn.Sequential(Own(lambda x: x.transpose(1, 2)), norm, Own(lambda x: x.transpose(1, 2)))


def _convolved(spec: Spec, groups: int) -> nn.Module:
    return spec.layer(spec.hidden, spec.hidden, groups=groups) if spec.features == 1 else nn.Identity()


def _instance_norm(spec: Spec) -> nn.Module:
    norms = {"image": nn.InstanceNorm2d, "signal": nn.InstanceNorm1d}
    return norms[spec.kind](spec.hidden, affine=True) if spec.kind in norms else nn.Identity()


def _layer_norm(spec: Spec) -> nn.Module:
    at = spec.features
    to_last, back = Own(lambda x: x.movedim(at, -1)), Own(lambda x: x.movedim(-1, at))
    return nn.Sequential(to_last, nn.LayerNorm(spec.hidden), back)


def _less_the_mean_place(x: T, at: int) -> T:
    return x if x.dim() == 2 else x - x.mean(1 if at == -1 else -1, keepdim=True)


def _first_three_zero(x: T) -> T:
    y = x.clone()
    y[..., :3].zero_()
    return y


def _last_one_more(x: T) -> T:
    y = x * 1
    y[..., -1].add_(1.0)
    return y


def _gram(x: T) -> T:
    rows = x.flatten(0, -2)
    return x @ (rows.t() @ rows / len(rows)).softmax(-1)


def _pairs(x: T) -> T:
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * odd.sigmoid(), odd], -1).flatten(-2)


def _rotated(x: T) -> T:
    one, two = x.chunk(2, -1)
    return torch.cat([-two, one], -1)


def _shaped(x: T, hidden: int) -> T:
    return x.reshape(-1, hidden).relu().reshape(x.shape)


HARMLESS: dict[str, Middle] = {
    "relu": lambda s: nn.ReLU(),
    "gelu": lambda s: nn.GELU(),
    "silu in place": lambda s: nn.SiLU(inplace=True),
    "tanh": lambda s: nn.Tanh(),
    "batch norm": _batch_norm,
    "dropout": lambda s: nn.Dropout(0.3),
    "bn, no affine": lambda s: _batch_norm(s, affine=False),
    "bn, no statistics": lambda s: _batch_norm(s, track_running_stats=False),
    "scale": PerUnit,
    "shift": lambda s: PerUnit(s, add=True),
    "buffer": lambda s: PerUnit(s, learned=False),
    "prelu": lambda s: nn.PReLU(s.hidden if s.kind != "sequence" else 1),
    "squeeze excite": SqueezeExcite,
    "depthwise": lambda s: _convolved(s, s.hidden),
    "grouped": lambda s: _convolved(s, 4),
    "instance norm": _instance_norm,
    "dropout of channels": lambda s: nn.Dropout2d(0.3) if s.kind == "image" else nn.Dropout(0.3),
    "places": lambda s: Own(lambda x: _less_the_mean_place(x, s.features)),
    "view": lambda s: Own(lambda x: x.reshape(-1, *x.shape[1:]).contiguous()),
    "view of constant": lambda s: _last(s, lambda x: x.reshape(*x.shape[:-1], s.hidden)),
    "add in place": lambda s: Own(lambda x: (x * 1).add_(0.5).mul_(0.7)),
    "clamp": lambda s: Own(lambda x: x.clamp(-1, 1)),
    "where": lambda s: Own(lambda x: torch.where(x > 0, x, 0.1 * x)),
    "filled in place": lambda s: Own(lambda x: x.clone().masked_fill_(x < 0, 0.2)),
    "square": lambda s: Own(lambda x: x * x),
    "detached gate": lambda s: Own(lambda x: x * x.detach().sigmoid()),
    "detached": lambda s: Own(lambda x: x.detach()),
}

MIXING: dict[str, Middle] = {
    "softmax": lambda s: nn.Softmax(s.features),
    "layer norm": _layer_norm,
    "group norm": lambda s: nn.Identity() if s.kind == "sequence" else nn.GroupNorm(2, s.hidden),
    "rms norm": RMSNorm,
    "centre": lambda s: Own(lambda x: x - x.mean(s.features, keepdim=True)),
    "detached scale": lambda s: Own(lambda x: x * x.detach().abs().mean()),
    "detached max": lambda s: Own(lambda x: x - x.detach().amax(s.features, keepdim=True)),
    "normalise": lambda s: Own(lambda x: F.normalize(x, dim=s.features)),
    "count": lambda s: Own(lambda x: x / x.shape[s.features]),
    "count of constant": lambda s: Own(lambda x: x * (s.hidden / x.shape[s.features])),
    "count of elements": lambda s: Own(lambda x: x * math.log(x.numel())),
    "count in training": lambda s: Own(lambda x: x * (x.shape[s.features] / s.hidden), training_only=True),
    "roll": lambda s: Own(lambda x: x.roll(1, s.features)),
    "flip": lambda s: Own(lambda x: x.flip(s.features)),
    "cumsum": lambda s: Own(lambda x: x.cumsum(s.features)),
    "sort": lambda s: Own(lambda x: x.sort(s.features).values),
    "permutation": lambda s: _last(s, lambda x: x[..., torch.arange(x.shape[-1] - 1, -1, -1)]),
    "shuffle": lambda s: _last(s, lambda x: x.unflatten(-1, (2, -1)).transpose(-2, -1).flatten(-2)),
    "first three zero": lambda s: _last(s, _first_three_zero),
    "last one more": lambda s: _last(s, _last_one_more),
    "first gates": lambda s: _last(s, lambda x: x * x[..., :1].sigmoid()),
    "pairs": lambda s: _last(s, _pairs),
    "halves rotated": lambda s: _last(s, _rotated),
    "mean gates": lambda s: Own(lambda x: x * x.mean(s.features, keepdim=True).sigmoid()),
    "gram": lambda s: _last(s, _gram),
    "mean of all gates": lambda s: Own(lambda x: x * x.mean().sigmoid()),
    "local response": lambda s: nn.LocalResponseNorm(3) if s.features == 1 else nn.Identity(),
    "neighbours": lambda s: _last(
        s, lambda x: F.avg_pool1d(x.reshape(-1, 1, x.shape[-1]), 3, 1, 1).view_as(x)
    ),
    "batch mean": lambda s: Own(lambda x: x - x.mean(0, keepdim=True)),
    "shape of the flat": lambda s: Own(lambda x: _shaped(x, s.hidden)),
    "linspace": lambda s: _last(s, lambda x: x * torch.linspace(0.5, 1.5, x.shape[-1], dtype=x.dtype)),
    "constant, first ones": lambda s: _last(s, lambda x: x * torch.arange(1, s.hidden + 1)[: x.shape[-1]]),
    "argmax": lambda s: Own(lambda x: x + x.argmax(s.features, keepdim=True) / 10),
    "std": lambda s: Own(lambda x: x / (1 + x.std(s.features, keepdim=True))),
    "never true": lambda s: Own(lambda x: x + (x > 1e9).sum(s.features, keepdim=True)),
    "padded and cut": lambda s: _last(s, lambda x: F.pad(x, (1, 1))[..., 1:-1]),
    "padded and shifted": lambda s: _last(s, lambda x: F.pad(x, (1, 0))[..., :-1]),
}
