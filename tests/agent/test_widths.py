"""Hidden widths through all that works channel by channel; what else reads them keeps them whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from greend_agent.plan import Call, Plan, make_plan

from .zoo import oracle

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def plan_of(model: nn.Module, x: torch.Tensor = IMAGES, **options) -> Plan:
    return make_plan(model.train(), Call.of((x,), {}), **options)


def holds(model: nn.Module, plan: Plan, x: torch.Tensor) -> bool:
    """Whether at each level the narrowed model is the full one that does not see the units left out."""
    inputs = [((x,), {}), ((x.flip(0) * 2,), {})]
    levels = plan.table.counts[:-1]
    return bool(levels) and not any(oracle.broken_promises(model, plan.dials, c, inputs) for c in levels)


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, width):
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(width, 8, 1), nn.Conv2d(8, width, 1)

    def forward(self, x):
        return x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Plus(nn.Module):
    """A residual block."""

    def __init__(self, *layers):
        super().__init__()
        self.branch = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.branch(x)


def conv(*middle, out=16):
    return nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), *middle, nn.Conv2d(32, out, 3, padding=1))


FLAT = (nn.Flatten(), nn.Linear(32 * 16 * 16, 5))


@pytest.mark.parametrize(
    ("model", "full"),
    [
        (conv(nn.ReLU()), 32),
        (conv(nn.BatchNorm2d(32), nn.ReLU(inplace=True)), 32),
        (conv(nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.BatchNorm2d(32), nn.ReLU6()), 32),
        (conv(Gate(32)), 32),
        (conv(nn.MaxPool2d(2), nn.Hardswish(), nn.Upsample(scale_factor=2)), 32),
        (conv(nn.GroupNorm(8, 32), nn.SiLU()), 8),
        (conv(nn.Conv2d(32, 32, 3, padding=1, groups=8), nn.BatchNorm2d(32)), 8),
        (conv(nn.PReLU(32)), 32),
        (conv(nn.PReLU()), 32),
        (conv(nn.ReflectionPad2d(1)), 32),
        (nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), *FLAT), 32),
        (nn.Sequential(nn.Conv2d(3, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)), 32),
        (nn.Sequential(nn.ConvTranspose2d(3, 32, 2, 2), nn.ReLU(), nn.ConvTranspose2d(32, 8, 2, 2)), 32),
        (nn.Sequential(nn.Conv2d(3, 8, 1), Plus(nn.Conv2d(8, 32, 1), nn.ReLU(), nn.Conv2d(32, 8, 1))), 32),
    ],
    ids=[
        "relu", "batch norm", "depthwise", "squeeze and excitation", "pooling", "group norm",
        "in groups", "prelu each",
        "prelu", "reflection", "flatten", "global pooling", "transposed", "residual",
    ],
)  # fmt: skip
def test_a_width_reaches_through_what_works_channel_by_channel(model, full):
    plan = plan_of(model)

    assert [dial.full for dial in plan.dials if dial.full in (8, 32)].count(full) >= 1, plan.report
    assert holds(model, plan, IMAGES)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (conv(nn.Conv2d(32, 64, 1, groups=4), nn.Conv2d(64, 32, 1)), "passes through Convolution"),
        (conv(nn.LayerNorm(16)), "passes through NativeLayerNorm"),
        (conv(nn.ChannelShuffle(4)), "ChannelShuffle"),
        (nn.Sequential(nn.Conv2d(3, 8, 1), Plus(nn.Conv2d(8, 8, 1)), nn.Conv2d(8, 2, 1)), "residual stream"),
        (nn.Sequential(nn.Conv2d(3, 32, 1), nn.PixelShuffle(2), nn.Conv2d(8, 4, 1)), "PixelShuffle"),
    ],
    ids=["grouped", "layer norm", "shuffle", "residual", "pixel shuffle"],
)
def test_what_mixes_channels_keeps_them(model, reason):
    plan = plan_of(model)

    assert not any(dial.name.startswith("0") for dial in plan.dials)
    assert reason in "\n".join(plan.report)


def test_two_widths_in_a_row_narrow_what_is_between_them_on_both_sides():
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 48, 3), nn.ReLU(), nn.Conv2d(48, 5, 3)
    )

    plan = plan_of(model)

    assert [dial.full for dial in plan.dials] == [32, 48]
    between = next(w for w in plan.ladder.windows if w.param is model[2].weight)
    assert between.indices[0] is not None
    assert between.indices[0][0].stop < 48
    assert between.indices[0][1].stop < 32
    assert holds(model, plan, IMAGES)


def test_a_fused_gate_keeps_the_first_units_of_both_halves():
    class Fused(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_up, self.down = nn.Linear(12, 64), nn.Linear(32, 12)

        def forward(self, x):
            gate, up = self.gate_up(x).chunk(2, -1)
            return x + self.down(nn.functional.silu(gate) * up)

    model, x = Fused(), torch.randn(5, 12)

    plan = plan_of(model, x)

    assert [dial.full for dial in plan.dials] == [32]
    rows = next(w for w in plan.ladder.windows if w.param is model.gate_up.weight).indices[0][0]
    assert rows.tolist() == [*range(8), *range(32, 40)]
    assert holds(model, plan, x)


def test_levels_may_be_given_as_costs():
    plan = plan_of(conv(nn.ReLU(), out=4), levels=[0.25, 0.75, 1.0])

    assert plan.table.costs == pytest.approx([0.25, 0.75, 1.0])


class Cubed(torch.autograd.Function):
    """A function of the user's own."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):
        return 3 * ctx.saved_tensors[0] ** 2 * grad


def test_a_function_of_the_user_s_own_is_for_the_proof_to_judge():
    class Own(nn.Module):
        def forward(self, x):
            return Cubed.apply(x)

    plan = plan_of(conv(Own()))

    assert [dial.full for dial in plan.dials] == [32]


def test_only_the_knobs_that_are_named_are_turned():
    model = nn.Sequential(conv(nn.ReLU()), nn.Flatten(), nn.Linear(16 * 256, 32), nn.ReLU(), nn.Linear(32, 4))

    assert {dial.knob for dial in plan_of(model).dials} == {"channels", "ffn"}
    assert {dial.knob for dial in plan_of(model, knobs=["ffn"]).dials} == {"ffn"}
    assert not plan_of(model, knobs=["heads"]).dials


def test_a_maximum_over_units_that_two_samples_do_not_show_is_found_all_the_same():
    class Greatest(nn.Module):
        def forward(self, x):
            return x - x.amax(1, keepdim=True).detach()

    for seed in range(20):
        torch.manual_seed(seed)
        assert not plan_of(conv(Greatest())).dials
