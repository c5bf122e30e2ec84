"""Small nets and an ordinary training loop, written as a user writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

WIDTH, HIDDEN = 16, 64


class Block(nn.Module):
    """A residual block with a hidden width that can narrow."""

    def __init__(self, width: int = WIDTH, hidden: int = HIDDEN, drop: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.drop = nn.Dropout(drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.drop(torch.nn.functional.gelu(self.up(self.norm(x)))))


def net(hidden: int = HIDDEN, drop: float = 0.0, depth: int = 3, seed: int = 0) -> nn.Sequential:
    """A net of residual blocks; the same seed gives the same weights."""
    torch.manual_seed(seed)
    return nn.Sequential(*(Block(hidden=hidden, drop=drop) for _ in range(depth)), nn.Linear(WIDTH, 4))


OPTIMIZERS: dict[str, Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, foreach=False),
    "adamw-foreach": lambda p: torch.optim.AdamW(p, lr=1e-3, foreach=True),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
}


def batches(steps: int, seed: int = 1) -> list[torch.Tensor]:
    """Batches that are the same for whoever asks with the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(8, WIDTH, generator=generator) for _ in range(steps)]


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> None:
    """One ordinary training step."""
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, xs: list[torch.Tensor]) -> None:
    """An ordinary training loop."""
    for x in xs:
        step(model, optimizer, x)
