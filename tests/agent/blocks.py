"""Nets of residual blocks, as people write them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from greend_agent.knobs.depth import find
from greend_agent.plan.probe import Call, undisturbed
from greend_agent.plan.prove import prove

D = 16
TOKENS = torch.randn(2, 5, D, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class PreLN(nn.Module):
    """A transformer's block as GPT has it."""

    def __init__(self):
        super().__init__()
        self.norm, self.other_norm = nn.LayerNorm(D), nn.LayerNorm(D)
        self.attention = nn.MultiheadAttention(D, 4, batch_first=True)
        self.up, self.down = nn.Linear(D, 2 * D), nn.Linear(2 * D, D)
        self.drop = nn.Dropout(0.1)

    def forward(self, x, mask=None):
        normed = self.norm(x)
        x = x + self.drop(self.attention(normed, normed, normed, attn_mask=mask, need_weights=False)[0])
        return x + self.drop(self.down(F.gelu(self.up(self.other_norm(x)))))


class PostLN(PreLN):
    def forward(self, x):
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        return self.other_norm(x + self.down(F.gelu(self.up(x))))


class Scaled(nn.Module):
    """A block as ConvNeXt has it: a scale for each channel on the branch, which is dropped at random."""

    def __init__(self, drop=0.5):
        super().__init__()
        self.mix, self.norm = nn.Conv2d(D, D, 7, padding=3, groups=D), nn.LayerNorm(D)
        self.up, self.down = nn.Linear(D, 2 * D), nn.Linear(2 * D, D)
        self.scale, self.drop = nn.Parameter(1e-2 * torch.ones(D)), drop

    def forward(self, x):
        branch = self.scale * self.down(F.gelu(self.up(self.norm(self.mix(x).permute(0, 2, 3, 1)))))
        branch = branch.permute(0, 3, 1, 2)
        if self.training:
            branch = branch * (torch.rand(len(x), 1, 1, 1) > self.drop) / (1 - self.drop)
        return x + branch


class Basic(nn.Module):
    """A block of a ResNet: the sum goes through a ReLU."""

    def __init__(self, bottleneck=False):
        super().__init__()
        inner, k = (D // 2, 1) if bottleneck else (D, 3)
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, s, padding=s // 2, bias=False)
            for i, o, s in [(D, inner, k), (inner, inner, 3), (inner, D, k)]
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(conv.out_channels) for conv in self.convs)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = x
        for conv, norm in zip(self.convs, self.norms, strict=True):
            out = self.relu(norm(conv(out))) if conv is not self.convs[-1] else norm(conv(out))
        out += x
        return self.relu(out)


class Own(nn.Module):
    """A block with one layer, and a function of what it is given and what the layer makes of it."""

    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Sequential(nn.Linear(D, D), nn.Tanh()), function

    def forward(self, x):
        return self.function(x, self.layer(x))


class ReZero(nn.Module):
    """A branch that begins at zero, weighted by one number."""

    def __init__(self):
        super().__init__()
        self.layer, self.weight = nn.Linear(D, D), nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return x + self.weight * torch.tanh(self.layer(x))


def net(block, depth=8, image=False):
    """A net of blocks between a layer that makes their stream and one that reads it."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, D, 3, padding=1), nn.ReLU()) if image else nn.Linear(D, D)
    last = nn.Conv2d(D, 4, 1) if image else nn.Linear(D, 4)
    return nn.Sequential(first, *(block() for _ in range(depth)), last)


def found(model, call=None, *, trained=None, enough=8):
    """Its dial, and the reasons why others cannot be skipped."""
    with undisturbed(model, call or call_of(model)) as run:
        dials, rejected = find(model, run, trained, enough=enough)
    return (dials[0] if dials else None), rejected


def call_of(model):
    image = any(isinstance(m, nn.Conv2d) for m in model.modules())
    return Call.of((IMAGES if image else TOKENS,), {})


def disagreements(model, dial, call=None):
    """What the proof says at each number of blocks that the dial can be asked for."""
    with undisturbed(model, call or call_of(model)) as run:
        counts = range(dial.count(0.1, 4), dial.full)
        return [why for count in counts for why in prove(run, [dial], {dial: count}).values()]
