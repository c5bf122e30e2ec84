"""Ladders made by hand: what a plan would find, for tests that are about windows alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from greend_agent.dial import spread
from greend_agent.knobs.width import Side, Width
from greend_agent.windows.ladder import Index, Ladder
from greend_agent.windows.window import WindowSet


class ConvBlock(nn.Module):
    """A residual block of convolutions with batch norm, narrow in the middle."""

    def __init__(self, width: int, mid: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, mid, 1, bias=False), nn.BatchNorm2d(mid)
        self.conv2, self.norm2 = nn.Conv2d(mid, mid, 3, padding=1, bias=False), nn.BatchNorm2d(mid)
        self.conv3 = nn.Conv2d(mid, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return x + self.conv3(torch.relu(self.norm2(self.conv2(y))))


class Attention(nn.Module):
    """Self-attention with one projection for query, key and value; heads are cut from each."""

    def __init__(self, width: int, heads: int, head: int, bias: bool) -> None:
        super().__init__()
        self.head = head
        self.qkv = nn.Linear(width, 3 * heads * head, bias=bias)
        self.out = nn.Linear(heads * head, width, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, _ = x.shape
        q, k, v = (p.view(b, t, -1, self.head).transpose(1, 2) for p in self.qkv(x).chunk(3, dim=-1))
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(1, 2).reshape(b, t, -1))


def conv_net(mid: int = 16, *, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(ConvBlock(12, mid), ConvBlock(12, mid), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def attention_net(heads: int = 4, *, seed: int = 0, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(Attention(16, heads, 8, bias), Attention(16, heads, 8, bias))


def widths(model: nn.Module) -> list[Width]:
    """What can be narrowed in these nets."""
    found = []
    for name, m in model.named_modules():
        if isinstance(m, ConvBlock):
            for conv, norm, reader in ((m.conv1, m.norm1, m.conv2), (m.conv2, m.norm2, m.conv3)):
                made = (conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var)
                makes, reads = tuple(Side(t, 0) for t in made), (Side(reader.weight, 1),)
                found.append(Width("channels", name, conv.out_channels, makes, reads, (reader,)))
        elif isinstance(m, Attention):
            units = (m.head,) * 3
            makes = tuple(Side(t, 0, units) for t in m.qkv.parameters())
            reads = (Side(m.out.weight, 1, (m.head,)),)
            found.append(Width("heads", name, m.out.in_features // m.head, makes, reads, (m.out,)))
    return found


def ladder(model: nn.Module, *parts: float) -> Ladder:
    """A ladder of levels that keep parts of all widths, and the whole model above."""
    found = widths(model)
    return spread(found, [[max(1, int(w.full * part)) for w in found] for part in (*parts, 1.0)])


def run(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    xs: list[torch.Tensor],
    windows: WindowSet | None = None,
    level: Callable[[int], int] = lambda step: 0,
) -> None:
    """An ordinary training loop, with windows on and off at each step as the agent does it."""
    for number, x in enumerate(xs):
        optimizer.zero_grad()
        if windows is not None:
            windows.apply(level(number))
        model(x).square().mean().backward()
        if windows is not None:
            windows.before_step((optimizer,), {})
        optimizer.step()
        if windows is not None:
            windows.stepped()
            windows.restore()


def small_twin(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    small: nn.Module,
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    rungs: Ladder,
    level: int = 0,
) -> tuple[torch.optim.Optimizer, dict[torch.Tensor, Index | None]]:
    """Give a physically small model what a window shows of a model; return its optimizer and the indices."""
    indices = {w.param: w.indices[level] for w in rungs.windows}
    twin = make(list(small.parameters()))
    with torch.no_grad():
        for whole, part in zip(tensors(model), tensors(small), strict=True):
            part.copy_(seen(whole, indices.get(whole)))
    for whole, part in zip(model.parameters(), small.parameters(), strict=True):
        state = optimizer.state.get(whole, {})
        twin.state[part] = {
            name: (seen(value, indices.get(whole)) if value.shape == whole.shape else value).clone()
            for name, value in state.items()
            if isinstance(value, torch.Tensor)
        }
    return twin, indices


def tensors(model: nn.Module) -> list[torch.Tensor]:
    """All parameters and buffers."""
    return [*model.parameters(), *model.buffers()]


def seen(tensor: torch.Tensor, index: Index | None) -> torch.Tensor:
    """What a window shows."""
    return tensor if index is None else tensor[index]


def outside(tensor: torch.Tensor, index: Index | None) -> torch.Tensor:
    """What it does not."""
    mask = torch.ones_like(tensor, dtype=torch.bool)
    mask[index if index is not None else ...] = False
    return tensor[mask]
