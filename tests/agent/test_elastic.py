"""Modules made to shrink are ordinary ones without an agent, and with one follow its level."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import greend_agent
from greend_agent import elastic
from greend_agent.dial import spread
from greend_agent.elastic import Cut, DynamicConv2d, DynamicLinear, Setting, Steps, Turned
from greend_agent.knobs import kernel
from greend_agent.plan import Call, make_plan
from greend_agent.plan.layers import Fitness
from greend_agent.plan.probe import undisturbed
from greend_agent.plan.prove import prove
from greend_agent.windows.window import WindowSet

C = 6


def find(model, trained=None):
    return elastic.find(model, Fitness(model, model.modules(), trained))


def windows_of(model: nn.Module, optimizer=None) -> WindowSet:
    """All positions of all dials of its elastic modules, from the least to the full one."""
    dials, rejected = find(model)
    assert not rejected
    top = max(dial.full for dial in dials)
    counts = [[min(dial.full, level) for dial in dials] for level in range(1, top + 1)]
    return WindowSet(spread(dials, counts), optimizer)


def image(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


CONVS = {
    "plain": {},
    "strided": {"stride": 2},
    "dilated": {"dilation": 2, "kernel_sizes": (3, 5)},
    "oblong": {"stride": (2, 1), "dilation": (1, 2)},
    "depthwise": {"groups": C},
    "without bias": {"bias": False},
    "reflected": {"padding_mode": "reflect"},
}


@pytest.mark.parametrize("kind", CONVS)
def test_without_an_agent_a_dynamic_convolution_is_an_ordinary_one(kind):
    dynamic = DynamicConv2d(C, 2 * C, **CONVS[kind])
    options = {k: v for k, v in CONVS[kind].items() if k != "kernel_sizes"}
    plain = nn.Conv2d(C, 2 * C, dynamic.kernel_size, padding=dynamic.padding, **options)
    x = image(2, C, 14, 15)

    plain.load_state_dict(dynamic.state_dict())
    assert torch.equal(dynamic(x), plain(x))
    dynamic.load_state_dict(copy.deepcopy(plain.state_dict()))
    assert torch.equal(dynamic(x), plain(x))
    assert dynamic.level == len(dynamic.kernel_sizes) - 1


@pytest.mark.parametrize("kind", CONVS)
@pytest.mark.parametrize("size", [(14, 14), (15, 11), (8, 9)])
def test_at_every_size_a_dynamic_convolution_gives_the_same_shape_and_the_gradients_of_its_centre(kind, size):
    conv = DynamicConv2d(C, 2 * C, **CONVS[kind])
    whole = conv.weight.detach().clone()
    windows = windows_of(conv)
    x = image(2, C, *size)
    shape = conv(x).shape
    assert shape[2:] == tuple(-(-s // stride) for s, stride in zip(size, conv.stride, strict=True))

    for level, k in enumerate(conv.kernel_sizes[:-1]):
        ring = (conv.kernel_sizes[-1] - k) // 2
        centre = whole[:, :, ring : ring + k, ring : ring + k].clone().requires_grad_()
        pads = [k // 2 * d for d in conv.dilation]
        padded, padding = x, pads
        if conv.padding_mode != "zeros":
            padded, padding = F.pad(x, [pads[1], pads[1], pads[0], pads[0]], mode=conv.padding_mode), 0
        expected = F.conv2d(padded, centre, conv.bias, conv.stride, padding, conv.dilation, conv.groups)
        (wanted,) = torch.autograd.grad(expected.square().sum(), centre)

        windows.apply(level)
        actual = conv(x)
        (gradient,) = torch.autograd.grad(actual.square().sum(), conv.weight)
        assert conv.level == level
        windows.restore()

        assert actual.shape == shape
        torch.testing.assert_close(actual, expected)
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(conv.weight, whole)


def test_the_sizes_share_one_weight_which_is_a_seventh_by_seven_and_no_more():
    conv = DynamicConv2d(C, C, (3, 5, 7))

    assert [tuple(p.shape) for p in conv.parameters()] == [(C, C, 7, 7), (C,)]
    assert conv.kernel_sizes == DynamicConv2d(C, C, [7, 3, 5, 5]).kernel_sizes
    assert "kernel_sizes=(3, 5, 7)" in repr(conv)


@pytest.mark.parametrize("sizes", [(), (3, 4), (1, 3), (2,)])
def test_kernels_without_a_common_centre_are_refused_in_words(sizes):
    with pytest.raises(ValueError, match="are odd, from 3 on"):
        DynamicConv2d(C, C, sizes)


def test_the_planner_asks_a_dynamic_convolution_and_does_not_look_for_its_kernel_itself():
    model = nn.Sequential(DynamicConv2d(C, C, (3, 7)), nn.Conv2d(C, C, 5, padding=2))

    assert [dial.name for dial in kernel.find(model, Fitness(model, model.modules(), None))[0]] == ["1"]
    assert [(dial.name, dial.full) for dial in find(model)[0]] == [("0", 2)]
    assert not find(DynamicConv2d(C, C, (5,)))[0]


def test_a_dynamic_linear_computes_its_first_outputs_and_gives_zeros_for_the_others():
    layer = DynamicLinear(8, 16, widths=(4, 12))
    plain = nn.Linear(8, 16)
    plain.load_state_dict(layer.state_dict())
    x = image(3, 5, 8)
    windows = windows_of(layer)

    assert torch.equal(layer(x), plain(x))
    assert (layer.widths, layer.level) == ((4, 12, 16), 2)
    for level, width in enumerate((4, 12)):
        windows.apply(level)
        actual = layer(x)
        assert (layer.level, layer.weight.shape) == (level, (width, 8))
        windows.restore()
        assert actual.shape == (3, 5, 16)
        torch.testing.assert_close(actual[..., :width], plain(x)[..., :width])
        assert not actual[..., width:].any()
    assert torch.equal(layer(x), plain(x))


def test_the_widths_of_a_dynamic_linear_are_quarters_unless_said():
    assert DynamicLinear(4, 64).widths == (16, 32, 48, 64)
    assert DynamicLinear(4, 5).widths == (2, 3, 5)
    assert DynamicLinear(4, 1).widths == (1,)
    assert not find(DynamicLinear(4, 1))[0]
    for widths in ((1, 4), (4, 9)):
        with pytest.raises(ValueError, match="each must be from 2 to out_features = 8"):
            DynamicLinear(4, 8, widths)


class Codes(nn.Module):
    """An elastic module of a user's own."""

    def __init__(self, kept=32, blinded=32, readers=True):
        super().__init__()
        self.codes = nn.Parameter(torch.randn(64, C, generator=torch.Generator().manual_seed(0)))
        self.sizes, self.readers, self.in_use = (kept, blinded), readers, 64

    def forward(self, x):
        return (x @ self.codes.T).relu() @ self.codes / 64

    def greend_dials(self, name):
        kept, blinded = (Cut(self.codes, 0, slice(0, size)) for size in self.sizes)
        half = Turned((kept,), (Setting(self, "in_use", self.sizes[0]),), (blinded,))
        return [Steps("codes", name, (self,), (self,) if self.readers else (), (half,), (0.5,))]


def plan_of(model: nn.Module, x: torch.Tensor):
    return make_plan(model.train(), Call.of((x,), {}), levels=2)


def test_a_module_of_ones_own_is_proven_and_follows():
    model = nn.Sequential(nn.Linear(C, C), Codes())
    x = image(5, C)
    plan = plan_of(model, x)

    assert [(dial.knob, dial.name) for dial in plan.dials] == [("codes", "1")]
    whole = model(x)
    windows = WindowSet(plan.ladder)
    windows.apply(0)
    assert (model[1].codes.shape, model[1].in_use) == ((32, C), 32)
    half = model(x)
    windows.restore()
    assert (model[1].codes.shape, model[1].in_use) == ((64, C), 64)
    assert not torch.equal(half, whole)


def test_a_module_that_says_what_is_not_so_is_not_believed():
    plan = plan_of(nn.Sequential(nn.Linear(C, C), Codes(kept=32, blinded=48)), image(5, C))

    assert not plan.dials
    assert "its reader gives other values" in "\n".join(plan.report)


def test_a_module_that_does_not_claim_to_be_exact_is_only_seen_to_run():
    plan = plan_of(nn.Sequential(nn.Linear(C, C), Codes(32, 48, readers=False)), image(5, C))

    assert [dial.knob for dial in plan.dials] == ["codes"]


class Broken(Codes):
    def greend_dials(self, name):
        raise KeyError("none")


def tied():
    model = nn.Sequential(DynamicLinear(C, C), nn.Linear(C, C))
    model[1].weight = model[0].weight
    return model


def hooked():
    model = nn.Sequential(DynamicConv2d(C, C))
    model[0].weight.register_post_accumulate_grad_hook(lambda p: None)
    return model


def parametrized():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(DynamicConv2d(C, C)))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Sequential(Broken()), "its greend_dials raised KeyError: 'none'"),
        (tied(), "is tied to another layer's"),
        (hooked(), "has a gradient hook"),
        (parametrized(), "is computed, not a parameter"),
    ],
    ids=["raises", "tied", "hooked", "parametrized"],
)
def test_an_elastic_module_that_cannot_shrink_is_left_alone_and_the_reason_is_said(model, reason):
    dials, rejected = find(model)

    assert not dials
    assert [name for name, _ in rejected] == ["0"]
    assert reason in rejected[0][1]


def test_a_frozen_elastic_module_is_left_alone():
    model = nn.Sequential(DynamicLinear(C, C), nn.Linear(C, C))

    assert find(model, list(model[1].parameters()))[1] == [
        ("0", "a weight that it cuts is not trained by the optimizer")
    ]


class Designed(nn.Module):
    """A net designed to shrink: kernels, and what is written into its residual stream."""

    def __init__(self, sizes=(3, 5, 7), widths=(8, 16, 24)):
        super().__init__()
        torch.manual_seed(0)
        self.mix, self.norm = DynamicConv2d(4, 8, sizes, stride=2), nn.BatchNorm2d(8)
        self.stem, self.write, self.read = nn.Linear(8, 32), DynamicLinear(32, 32, widths), nn.Linear(32, 4)

    def forward(self, x):
        x = self.stem(self.norm(self.mix(x)).relu().mean((2, 3)))
        return self.read(F.layer_norm(x + torch.tanh(self.write(x)), (32,)))


def test_an_agent_trains_a_designed_net_at_all_levels_and_what_is_not_in_use_does_not_move():
    model, x, labels = Designed(), image(8, 4, 12, 12), torch.arange(8) % 4
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    agent = greend_agent.attach(model, optimizer, levels=[0.3, 0.6, 1.0])
    losses, sizes = [], {}

    for number in range(30):
        agent.request(number % 3)
        before = copy.deepcopy(model.state_dict())
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        kernel, width = model.mix.weight.shape[-1], model.write.weight.shape[0]
        optimizer.step()
        losses.append(loss.item())
        if number:
            sizes[agent.level] = kernel, width
        moved = model.mix.weight != before["mix.weight"]
        ring = (7 - kernel) // 2
        assert moved[:, :, ring : 7 - ring, ring : 7 - ring].any()
        moved[:, :, ring : 7 - ring, ring : 7 - ring] = False
        assert not moved.any()
        assert torch.equal(model.write.weight[width:], before["write.weight"][width:])

    assert (len(agent.costs), sizes[2]) == (3, (7, 32)), agent.report()
    assert sizes[0] < sizes[1] < sizes[2]
    assert losses[-1] < losses[0] / 2
    agent.detach()
    assert (model.mix.level, model.write.level) == (2, 3)


def test_every_position_of_a_designed_net_is_proven():
    model = Designed().train()
    dials, _ = find(model)

    with undisturbed(model, Call.of((image(8, 4, 12, 12),), {})) as run:
        failed = [prove(run, dials, dict(zip(dials, (k, w), strict=True))) for k in (1, 2) for w in (1, 2, 3)]

    assert failed == [{}] * 6
