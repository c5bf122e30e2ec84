"""What is found and proven in models as people write them; what is not proven is never touched."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from greend_agent.plan import Call, make_plan
from greend_agent.windows.window import WindowSet

from .middles import FFN, D, H, Own, X, plan_of


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
    assert all(exact(model, plan, level) for level in range(len(plan.table)))

    assert len(plan.dials) == groups, plan.report
    assert list(plan.table.costs) == sorted(set(plan.table.costs))
    assert plan.table.costs[-1] == 1.0


def parametrized():
    model = FFN(nn.GELU)
    nn.utils.parametrizations.weight_norm(model.up)
    return model


def hooked():
    model = FFN(nn.GELU)
    model.up.weight.register_hook(lambda grad: grad)
    return model


class Stubborn(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


def own_forward():
    model = FFN(nn.GELU)
    model.up = Stubborn(D, H)
    return model


class SaysHidden(FFN):
    def forward(self, x):
        hidden = self.up(x)
        return x + self.down(hidden), hidden


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (FFN(lambda: nn.Softmax(-1)), "passes through Softmax"),
        (FFN(lambda: nn.LayerNorm(H)), "passes through NativeLayerNorm"),
        (FFN(lambda: Own(lambda x: x / x.norm(dim=-1, keepdim=True))), "rejected"),
        (FFN(lambda: Own(lambda x: x - x.mean(-1, keepdim=True))), "rejected"),
        (FFN(lambda: Own(lambda x: x.flip(-1))), "passes through Flip"),
        (FFN(lambda: Own(lambda x: x.cumsum(-1))), "passes through Cumsum"),
        (FFN(lambda: Own(lambda x: x * torch.linspace(1, 2, H))), "narrowed, it raises RuntimeError"),
        (FFN(lambda: Own(lambda x: x / x.shape[-1])), "narrowed, its reader gives other values"),
        (FFN(lambda: Own(lambda x: x.detach() * 1)), ""),
        (SaysHidden(), "output changes shape"),
        (Twice(), "called 2 times"),
        (Tied(), "tied to another layer's"),
        (Concat(), "passes through Cat"),
        (parametrized(), "computed (parametrized)"),
        (hooked(), "gradient hook"),
        (own_forward(), "a Stubborn with a forward of its own"),
    ],
    ids=[
        "softmax", "layer norm", "norm", "mean", "flip", "cumsum", "a vector as wide", "counts units",
        "detached", "returned", "called twice", "tied", "concat",
        "weight norm", "gradient hook", "own forward",
    ],
)  # fmt: skip
def test_what_mixes_shares_or_counts_hidden_units_is_left_alone_and_the_report_says_why(model, reason):
    plan = plan_of(model)

    assert not plan.dials
    assert plan.table.costs == (1.0,)
    assert reason in "\n".join(plan.report)


def test_what_is_harmless_in_the_middle_does_not_stand_in_the_way():
    model = FFN(lambda: Own(lambda x: x * torch.arange(H).float().sum()))

    plan = plan_of(model)

    assert len(plan.dials) == 1
    assert exact(model, plan)


def test_one_bad_block_among_good_ones_does_not_spoil_them():
    bad = FFN(lambda: Own(lambda x: x / x.shape[-1]))
    model = nn.Sequential(FFN(nn.GELU), bad, FFN(nn.ReLU), FFN(nn.Tanh))

    plan = plan_of(model)

    assert [dial.name for dial in plan.dials] == [f"{k}.up -> {k}.down" for k in (0, 2, 3)]
    assert all(exact(model, plan, level) for level in range(len(plan.table)))


def test_a_residual_stream_stays_whole_and_what_lies_in_a_block_narrows():
    plan = plan_of(nn.Sequential(nn.Linear(D, D), FFN(nn.GELU), nn.Linear(D, 3)))

    assert [dial.name for dial in plan.dials] == ["1.up -> 1.down"]
    assert "residual stream" in "\n".join(plan.report)


def exact(model, plan, level: int = 0) -> bool:
    """Whether the narrowed model is the full one whose readers do not see the units left out."""
    model.eval()
    counts = plan.table.counts[level]
    with torch.no_grad():
        kept = [(c.weight, c.weight.clone()) for g in plan.dials for c in g.readers]
        for group, count in zip(plan.dials, counts, strict=True):
            for consumer in group.readers:
                consumer.weight[:, count:] = 0
        expected = model(X)
        for weight, value in kept:
            weight.copy_(value)
        windows = WindowSet(plan.ladder)
        windows.apply(level)
        narrowed = model(X)
        windows.restore()
    return torch.allclose(narrowed, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max() + 1))


def test_a_frozen_layer_is_left_alone():
    model = FFN(nn.GELU)
    trained = set(model.down.parameters())

    plan = make_plan(model, Call.of((X,), {}), levels=4, trained=trained)

    assert not plan.dials
    assert "not trained" in plan.report[0]


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
    "count": lambda x: x / x.shape[-1],
    "there and back": lambda x: x.unsqueeze(0).transpose(0, 1).reshape(x.shape),
    "greatest": lambda x: x - x.amax(-1, keepdim=True).detach(),
    "first": lambda x: x * x[:, :1],
}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(sorted(OPS)), max_size=3), min_size=1, max_size=3),
    st.sampled_from([8, 24, 40]),
    st.booleans(),
)
@example([[], ["relu"], ["greatest"]], 24, False)  # its groups hold each alone, and not together
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

    assert not plan.dials or all(exact(model, plan, level) for level in range(len(plan.table) - 1))
