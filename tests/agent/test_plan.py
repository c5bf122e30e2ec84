"""What is found and proven in models as people write them; what is not proven is never touched."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from greend_agent.knobs import width
from greend_agent.plan import Call, make_plan
from greend_agent.window import WindowSet

D, H = 12, 32
X = torch.randn(5, D, generator=torch.Generator().manual_seed(0))


class FFN(nn.Module):
    """One hidden width with something in the middle."""

    def __init__(self, middle=nn.Identity, h=H):
        super().__init__()
        self.up, self.middle, self.down = nn.Linear(D, h), middle(), nn.Linear(h, D)

    def forward(self, x):
        return x + self.down(self.middle(self.up(x)))


class GLU(FFN):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(D, H)

    def forward(self, x):
        return x + self.down(nn.functional.silu(self.gate(x)) * self.up(x))


class Twice(FFN):
    def forward(self, x):
        return super().forward(super().forward(x))


class Tied(FFN):
    def __init__(self):
        super().__init__()
        self.other = nn.Linear(D, H)
        self.other.weight = self.up.weight

    def forward(self, x):
        return super().forward(x) + self.other(x).sum(-1, keepdim=True)


class Concat(FFN):
    def forward(self, x):
        return x + self.down(torch.cat([self.up(x)[:, : H // 2], self.up(x)[:, H // 2 :]], -1))


class Own(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def plan_of(model):
    return make_plan(model.train(), Call.of((X,), {}), levels=4)


@pytest.mark.parametrize(
    ("model", "groups"),
    [
        (FFN(nn.GELU), 1),
        (FFN(nn.ReLU), 1),
        (FFN(lambda: nn.Dropout(0.5)), 1),
        (nn.Sequential(FFN(nn.Tanh), FFN(nn.SiLU)), 2),
        (GLU(), 1),
        (nn.Sequential(nn.Linear(D, H), nn.ReLU(), nn.Linear(H, D)), 1),
    ],
    ids=["gelu", "relu", "dropout", "two blocks", "glu", "plain mlp"],
)
def test_a_hidden_width_is_found_and_proven(model, groups):
    plan = plan_of(model)

    assert len(plan.groups) == groups, plan.report
    assert list(plan.table.costs) == sorted(set(plan.table.costs))
    assert plan.table.costs[-1] == 1.0


@pytest.mark.parametrize(
    "model",
    [
        FFN(lambda: nn.Softmax(-1)),
        FFN(lambda: nn.LayerNorm(H)),
        FFN(lambda: Own(lambda x: x / x.norm(dim=-1, keepdim=True))),
        FFN(lambda: Own(lambda x: x - x.mean(-1, keepdim=True))),
        FFN(lambda: Own(lambda x: x.flip(-1))),
        FFN(lambda: Own(lambda x: x.cumsum(-1))),
        FFN(lambda: Own(lambda x: x * torch.arange(H).float().sum())),
        Twice(),
        Tied(),
        Concat(),
        nn.utils.parametrizations.weight_norm(nn.Linear(D, D)),
    ],
    ids=[
        "softmax", "layer norm", "norm", "mean", "flip", "cumsum", "harmless constant", "called twice",
        "tied", "concat", "weight norm",
    ],
)  # fmt: skip
def test_what_mixes_or_shares_hidden_units_is_left_alone_unless_it_is_harmless(model):
    plan = plan_of(model)

    harmless = isinstance(model, FFN) and isinstance(model.middle, Own) and len(plan.groups) == 1
    assert not plan.groups or (harmless and exact(model, plan))


def exact(model, plan, level: int = 0) -> bool:
    """Whether the narrowed model is the full one whose readers do not see the units left out."""
    model.eval()
    counts = plan.table.counts[level]
    with torch.no_grad():
        kept = [(c.weight, c.weight.clone()) for g in plan.groups for c in g.consumers]
        for group, count in zip(plan.groups, counts, strict=True):
            for consumer in group.consumers:
                consumer.weight[:, count:] = 0
        expected = model(X)
        for weight, value in kept:
            weight.copy_(value)
        windows = WindowSet(width.windows(plan.groups, plan.table.counts), len(plan.table))
        windows.apply(level)
        narrowed = model(X)
        windows.restore()
    return torch.allclose(narrowed, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max() + 1))


def test_a_frozen_layer_is_left_alone():
    model = FFN(nn.GELU)
    trained = set(model.down.parameters())

    plan = make_plan(model, Call.of((X,), {}), levels=4, trained=trained)

    assert not plan.groups
    assert "not trained" in plan.report[0]


def test_planning_leaves_no_trace():
    model = nn.Sequential(nn.BatchNorm1d(D), FFN(nn.GELU), nn.Dropout(0.5))
    model[2].eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    torch.manual_seed(3)
    random.seed(3)
    numbers = torch.get_rng_state(), random.getstate()

    make_plan(model, Call.of((X,), {}), levels=4)

    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), numbers[0])
    assert random.getstate() == numbers[1]


def test_a_model_that_raises_in_the_probe_is_given_back_as_it_was():
    class Moody(FFN):
        def forward(self, x):
            if not self.training:
                raise RuntimeError("not now")
            return super().forward(x)

    model = Moody(nn.GELU).train()

    with pytest.raises(RuntimeError, match="not now"):
        plan_of(model)

    assert all(m.training for m in model.modules())
    assert not any(m._forward_hooks for m in model.modules())


OPS = {
    "gelu": nn.functional.gelu,
    "relu": torch.relu,
    "softmax": lambda x: x.softmax(-1),
    "shift": lambda x: x + 0.3,
    "square": lambda x: x * x,
    "centre": lambda x: x - x.mean(-1, keepdim=True),
    "roll": lambda x: x.roll(1, -1),
    "gate": lambda x: x * x.sigmoid(),
    "sum gate": lambda x: x * x.sum(-1, keepdim=True).sigmoid(),
    "sort": lambda x: x.sort(-1).values,
}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(sorted(OPS)), max_size=3), min_size=1, max_size=3),
    st.sampled_from([8, 24, 40]),
    st.booleans(),
)
def test_whatever_is_accepted_in_a_random_net_is_exact(layers, h, residual):
    torch.manual_seed(h)

    def through(names):
        def run(x):
            for name in names:
                x = OPS[name](x)
            return x

        return lambda: Own(run)

    blocks = [FFN(through(names), h) for names in layers]
    if not residual:
        for block in blocks:
            block.forward = lambda x, b=block: b.down(b.middle(b.up(x)))
    model = nn.Sequential(*blocks)

    plan = plan_of(model)

    assert not plan.groups or all(exact(model, plan, level) for level in range(len(plan.table) - 1))
