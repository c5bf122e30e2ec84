"""A smaller kernel is the centre of the whole one, and gives an output of the same size."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from greend_agent.dial import spread
from greend_agent.knobs.kernel import find
from greend_agent.knobs.width import Side, Width
from greend_agent.plan.layers import Fitness
from greend_agent.plan.probe import Call, undisturbed
from greend_agent.plan.prove import prove
from greend_agent.windows.window import WindowSet

C = 6

CONVS = {
    "plain": lambda: nn.Conv2d(C, C, 7, padding=3),
    "strided": lambda: nn.Conv2d(C, C, 7, stride=2, padding=3),
    "dilated": lambda: nn.Conv2d(C, C, 5, padding=4, dilation=2),
    "depthwise": lambda: nn.Conv2d(C, C, 7, padding=3, groups=C),
    "grouped": lambda: nn.Conv2d(C, 2 * C, 5, padding=2, groups=2, bias=False),
    "oblong": lambda: nn.Conv2d(C, C, (3, 7), stride=(2, 1), padding=(1, 3)),
    "more padding": lambda: nn.Conv2d(C, C, 5, padding=(4, 2)),
    "less padding": lambda: nn.Conv2d(C, C, 7, padding=2),
    "same": lambda: nn.Conv2d(C, C, 7, padding="same"),
    "reflected": lambda: nn.Conv2d(C, C, 7, padding=3, padding_mode="reflect"),
    "circular": lambda: nn.Conv2d(C, C, (5, 7), padding="same", padding_mode="circular"),
    "replicated": lambda: nn.Conv2d(C, C, 5, stride=3, padding=2, padding_mode="replicate"),
    "1-d": lambda: nn.Conv1d(C, C, 9, padding=8, dilation=2),
    "3-d": lambda: nn.Conv3d(C, C, 5, padding=2),
}


def image(conv: nn.Module, size: int = 15) -> torch.Tensor:
    """Two samples that the convolution can be given."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, C, *[size] * (conv.weight.dim() - 2), generator=generator)


def dials_of(model: nn.Module, trained=None):
    return find(model, Fitness(model, model.modules(), trained))


@pytest.mark.parametrize("kind", CONVS)
def test_every_smaller_kernel_is_the_whole_one_with_its_outer_rings_at_zero(kind):
    conv = CONVS[kind]()
    x = image(conv)
    ((dial,), rejected) = dials_of(conv)
    whole, state, attributes = conv(x), copy.deepcopy(conv.state_dict()), dict(vars(conv))
    windows = WindowSet(spread([dial], [[count] for count in range(1, dial.full + 1)]))

    for level, size in enumerate(range(3, max(conv.kernel_size), 2)):
        zeroed = copy.deepcopy(conv)
        for dim, k in enumerate(conv.kernel_size, start=2):
            ring = max(0, (k - size) // 2)
            zeroed.weight.data.narrow(dim, 0, ring).zero_()
            zeroed.weight.data.narrow(dim, k - ring, ring).zero_()
        windows.apply(level)
        assert max(conv.weight.shape[2:]) == size
        assert conv.kernel_size == tuple(conv.weight.shape[2:])
        cropped = conv(x)
        windows.restore()

        torch.testing.assert_close(cropped, zeroed(x), rtol=1e-5, atol=1e-6)
        assert not torch.equal(cropped, whole)
    assert not rejected
    assert torch.equal(conv(x), whole)
    assert vars(conv).keys() == attributes.keys()
    assert all(vars(conv)[name] is value for name, value in attributes.items())
    assert all(torch.equal(value, state[name]) for name, value in conv.state_dict().items())


@pytest.mark.parametrize("kind", CONVS)
def test_every_size_is_proven(kind):
    model = nn.Sequential(CONVS[kind](), nn.ReLU())
    dials, _ = dials_of(model)

    with undisturbed(model, Call.of((image(model[0]),), {})) as run:
        failed = [prove(run, dials, {dials[0]: count}) for count in range(1, dials[0].full)]

    assert failed == [{}] * (dials[0].full - 1)


def test_a_kernel_that_moves_its_output_is_not_proven():
    model = nn.Sequential(nn.Conv2d(C, C, 5, padding=2), nn.ReLU())
    (dial,), _ = dials_of(model)
    one = dial.positions[0]
    moved = [type(cut)(cut.tensor, cut.dim, slice(0, 3)) for cut in one.cuts]
    object.__setattr__(dial, "positions", (type(one)(tuple(moved), one.settings, one.blinds),))

    with undisturbed(model, Call.of((image(model[0]),), {})) as run:
        failed = prove(run, [dial], {dial: 1})

    assert "its reader gives other values" in failed[dial]


class OwnForward(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


class OwnConvolution(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean(), bias)


def tied():
    model = nn.Sequential(nn.Conv2d(C, C, 5, padding=2), nn.Conv2d(C, C, 5, padding=2))
    model[1].weight = model[0].weight
    return model


def hooked():
    conv = nn.Conv2d(C, C, 5, padding=2)
    conv.weight.register_hook(lambda grad: grad)
    return conv


@pytest.mark.parametrize(
    ("conv", "reason"),
    [
        (nn.Conv2d(C, C, 7), "padded by 0x0 only"),
        (nn.Conv2d(C, C, 7, padding=1), "padded by 1x1 only"),
        (nn.Conv2d(C, C, 7, padding="valid"), "padded by 0x0 only"),
        (nn.Conv2d(C, C, 5, padding=2, dilation=3), "padded by 2x2 only"),
        (nn.Conv2d(C, C, 6, padding=3), "even, and has no centre"),
        (nn.Conv2d(C, C, (5, 2), padding=2), "5x2 is even"),
        (OwnForward(C, C, 5, padding=2), "a forward of its own"),
        (OwnConvolution(C, C, 5, padding=2), "a convolution of its own"),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(C, C, 5, padding=2)), "computed"),
        (tied(), "tied to another layer's"),
        (hooked(), "gradient hook"),
    ],
    ids=[
        "unpadded", "padded little", "valid", "padded little for its dilation", "even",
        "even in one dimension", "own forward", "own convolution", "weight norm", "tied", "gradient hook",
    ],
)  # fmt: skip
def test_a_kernel_that_cannot_be_cropped_is_left_alone_and_the_reason_is_said(conv, reason):
    dials, rejected = dials_of(conv)

    assert not dials
    assert rejected
    assert all(reason in why for _, why in rejected)


def test_a_frozen_kernel_is_left_alone():
    conv = nn.Conv2d(C, C, 5, padding=2)

    assert dials_of(conv, trained=[conv.bias])[1] == [("model", "a weight is not trained by the optimizer")]


def test_small_kernels_are_nobodys_business():
    model = nn.Sequential(nn.Conv2d(C, C, 3, padding=1), nn.Conv2d(C, C, 1), nn.ConvTranspose2d(C, C, 5))

    assert dials_of(model) == ([], [])


def test_the_share_of_work_is_that_of_the_kernels_area_and_the_nearest_one_is_taken():
    (square, line), _ = dials_of(nn.Sequential(nn.Conv2d(C, C, 7, padding=3), nn.Conv1d(C, C, 9, padding=4)))

    assert [square.share(c, square.parts[0]) for c in (1, 2, 3)] == [9 / 49, 25 / 49, 1.0]
    assert [line.share(c, line.parts[0]) for c in (1, 2, 3, 4)] == [3 / 9, 5 / 9, 7 / 9, 1.0]
    assert [square.count(f / 8, 4) for f in range(1, 9)] == [1, 1, 2, 2, 2, 2, 3, 3]


def net(mid: int = 8, k: int = 7, first: int = 5) -> nn.Sequential:
    """Two convolutions with a hidden width between them."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(C, mid, k, padding=k // 2),
        nn.ReLU(),
        nn.Conv2d(mid, C, first, stride=2, padding=first // 2),
    )


def test_kernel_and_channels_shrink_the_same_weight_together():
    model = net()
    kernels, _ = dials_of(model)
    channels = Width(
        "channels", "0 -> 2", 8,
        makes=(Side(model[0].weight, 0), Side(model[0].bias, 0)),
        reads=(Side(model[2].weight, 1),),
        readers=(model[2],),
    )  # fmt: skip
    dials = [*kernels, channels]
    counts = dict(zip(dials, (2, 1, 4), strict=True))

    with undisturbed(model, Call.of((image(model[0]),), {})) as run:
        assert not prove(run, dials, counts)
    windows = WindowSet(spread(dials, [[2, 1, 4], [d.full for d in dials]]))
    windows.apply(0)
    assert model[0].weight.shape == (4, C, 5, 5)
    assert model[2].weight.shape == (C, 4, 3, 3)
    windows.restore()
    assert model[0].weight.shape == (8, C, 7, 7)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_steps_with_a_cropped_kernel_are_those_of_a_physically_small_one_and_the_rings_do_not_move(kind):
    def optimizer_of(model):
        made = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[kind]
        return made(model.parameters(), lr=1e-2, foreach=False)

    model, small = net(), net(k=3, first=3)
    dials, _ = dials_of(model)
    with torch.no_grad():
        small[0].weight.copy_(model[0].weight[:, :, 2:5, 2:5])
        small[2].weight.copy_(model[2].weight[:, :, 1:4, 1:4])
        for which in (0, 2):
            small[which].bias.copy_(model[which].bias)
    before = model[0].weight.detach().clone()
    optimizer, other = optimizer_of(model), optimizer_of(small)
    windows = WindowSet(spread(dials, [[1, 1], [d.full for d in dials]]), optimizer)
    for seed in range(4):
        x = torch.randn(4, C, 12, 12, generator=torch.Generator().manual_seed(seed))
        windows.apply(0)
        for one, steps in ((model, optimizer), (small, other)):
            steps.zero_grad()
            one(x).square().mean().backward()
            steps.step()
        windows.restore()

    centre = model[0].weight.detach().clone()
    assert torch.equal(centre[:, :, 2:5, 2:5], small[0].weight)
    centre[:, :, 2:5, 2:5] = before[:, :, 2:5, 2:5]
    assert torch.equal(centre, before)
