"""A hidden width with something in the middle, and its plan."""

from __future__ import annotations

import torch
from torch import nn

from greend_agent.plan import Call, Plan, make_plan

D, H = 12, 32
X = torch.randn(5, D, generator=torch.Generator().manual_seed(0))


class FFN(nn.Module):
    """One hidden width with something in the middle."""

    def __init__(self, middle=nn.Identity, h=H):
        super().__init__()
        self.up, self.middle, self.down = nn.Linear(D, h), middle(), nn.Linear(h, D)

    def forward(self, x):
        return x + self.down(self.middle(self.up(x)))


class Own(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def plan_of(model: nn.Module) -> Plan:
    return make_plan(model.train(), Call.of((X,), {}), levels=4)
