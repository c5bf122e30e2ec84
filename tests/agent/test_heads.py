"""Attention heads in the ways in which people write them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from greend_agent.plan import Call, make_plan

from .test_widths import holds

WIDTH, HEADS, SIZE = 32, 4, 8
X = torch.randn(3, 6, WIDTH, generator=torch.Generator().manual_seed(0))


class Separate(nn.Module):
    """Query, key and value by themselves, heads told by their size."""

    key_heads = HEADS

    def __init__(self):
        super().__init__()
        self.q, self.o = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.k, self.v = (nn.Linear(WIDTH, self.key_heads * SIZE) for _ in range(2))

    def heads(self, x):
        return x.view(*x.shape[:2], -1, SIZE).transpose(1, 2)

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def forward(self, x):
        q, k, v = (self.heads(project(x)) for project in (self.q, self.k, self.v))
        group = HEADS // self.key_heads
        y = self.attend(q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1))
        return x + self.o(y.transpose(1, 2).flatten(2))


class Grouped(Separate):
    key_heads = 2


class ByHand(Separate):
    """Without the fused kernel."""

    def attend(self, q, k, v):
        return (q @ k.transpose(-1, -2) / SIZE**0.5).softmax(-1) @ v


class Counted(Separate):
    """Heads told by an attribute."""

    def __init__(self):
        super().__init__()
        self.n_heads = HEADS

    def heads(self, x):
        return x.view(*x.shape[:2], self.n_heads, SIZE).transpose(1, 2)


class Fused(nn.Module):
    """One projection, split by an attribute."""

    def __init__(self):
        super().__init__()
        self.qkv, self.o, self.inner = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), WIDTH

    def forward(self, x):
        q, k, v = (p.unflatten(-1, (-1, SIZE)).transpose(1, 2) for p in self.qkv(x).split(self.inner, -1))
        return x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Interleaved(Fused):
    """Query, key and value of each head side by side."""

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (-1, 3, SIZE)).permute(2 + 1, 0, 2, 1, 4)
        return x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ByTheStream(Fused):
    """Heads whose size is reckoned from the width of the residual stream: no attribute can tell them."""

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
        return x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, c))


@pytest.mark.parametrize(
    ("kind", "units", "padded"),
    [
        (Separate, 4, False),
        (Grouped, 2, False),
        (ByHand, 4, False),
        (Counted, 4, False),
        (Fused, 4, False),
        (Interleaved, 4, False),
        (ByTheStream, 4, True),
    ],
)
def test_heads_are_found_and_proven(kind, units, padded):
    torch.manual_seed(0)
    model = kind().train()

    plan = make_plan(model, Call.of((X,), {}))

    (dial,) = plan.dials
    assert (dial.knob, dial.full, bool(dial.padded)) == ("heads", units, padded), plan.report
    assert plan.table.costs[0] == pytest.approx(1 / units, abs=0.15)
    assert holds(model, plan, X)


def test_heads_that_look_at_each_other_stay():
    class Talking(Separate):
        def attend(self, q, k, v):
            scores = (q @ k.transpose(-1, -2)).softmax(-1)
            return (scores - scores.mean(1, keepdim=True)) @ v

    model = Talking().train()

    plan = make_plan(model, Call.of((X,), {}))

    assert not plan.dials
    assert "q * k * v -> o" in "\n".join(plan.report)


def test_of_attentions_alike_one_shows_the_layout_of_all():
    torch.manual_seed(0)
    model = nn.Sequential(*(Interleaved() for _ in range(3))).train()

    plan = make_plan(model, Call.of((X,), {}))

    assert [dial.name for dial in plan.dials] == [f"{k}.qkv -> {k}.o" for k in range(3)]
    assert holds(model, plan, X)


def test_what_an_attention_does_between_its_projections_counts_into_its_cost():
    torch.manual_seed(0)
    long = torch.randn(2, 128, WIDTH)

    whole, padded = (make_plan(kind().train(), Call.of((long,), {})) for kind in (Fused, ByTheStream))

    assert whole.table.costs[0] == pytest.approx(0.25, abs=0.01)
    assert padded.table.costs[0] > 0.4
