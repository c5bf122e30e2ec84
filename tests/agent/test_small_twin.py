"""Steps through windows are those of a physically small model, bit for bit; what is outside never moves."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from greend_agent.windows.ladder import UNTOUCHED, Attribute, Ladder, Window
from greend_agent.windows.window import WindowSet

from .by_hand import attention_net, conv_net, ladder, outside, run, seen, small_twin, tensors

MAKES = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, foreach=False),
    "foreach": lambda p: torch.optim.AdamW(p, lr=1e-3, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True),
    "fused-sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, fused=True),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=1e-3, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "adamax": lambda p: torch.optim.Adamax(p, lr=1e-3),
    "nadam": lambda p: torch.optim.NAdam(p, lr=1e-3),
    "radam": lambda p: torch.optim.RAdam(p, lr=1e-3),
}


def batches(shape: tuple[int, ...], steps: int, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for _ in range(steps)]


def check(net, small: nn.Module, shape: tuple[int, ...], make, steps: int = 20) -> None:
    model = net()
    optimizer = make(list(model.parameters()))
    rungs = ladder(model, 0.25, 0.5)
    windows = WindowSet(rungs, optimizer)
    run(model, optimizer, batches(shape, 2, seed=9))
    twin, indices = small_twin(model, optimizer, small, make, rungs)
    before = [t.detach().clone() for t in tensors(model)]
    state = {p: copy.deepcopy(optimizer.state[p]) for p in model.parameters()}

    run(model, optimizer, batches(shape, steps), windows)
    run(small, twin, batches(shape, steps))

    for whole, part, was in zip(tensors(model), tensors(small), before, strict=True):
        index = indices.get(whole)
        assert torch.equal(seen(whole, index), part)
        assert torch.equal(outside(whole, index), outside(was, index))
    for whole, part in zip(model.parameters(), small.parameters(), strict=True):
        index = indices.get(whole)
        for name, value in twin.state[part].items():
            found = optimizer.state[whole][name]
            if isinstance(value, torch.Tensor) and value.numel() > 1:
                assert torch.equal(seen(found, index), value), name
                assert torch.equal(outside(found, index), outside(state[whole][name], index)), name


@pytest.mark.parametrize("kind", MAKES)
def test_convolutions_with_batch_norm(kind):
    check(conv_net, conv_net(4, seed=3), (4, 12, 6, 6), MAKES[kind])


@pytest.mark.parametrize("kind", ["sgd", "adamw", "fused"])
def test_heads_of_a_fused_projection(kind):
    check(attention_net, attention_net(1, seed=3), (2, 5, 16), MAKES[kind])


@pytest.mark.parametrize("kind", ["adamw", "fused"])
def test_convolutions_in_channels_last(kind):
    def net(mid: int = 16, seed: int = 0) -> nn.Module:
        return conv_net(mid, seed=seed).to(memory_format=torch.channels_last)

    check(net, net(4, 3), (4, 12, 6, 6), MAKES[kind])


def test_muon_orthogonalises_the_window_alone():
    muon = getattr(torch.optim, "Muon", None) or pytest.skip("this torch has no Muon")

    def net(heads: int = 4, seed: int = 0) -> nn.Module:
        return attention_net(heads, seed=seed, bias=False)

    check(net, net(1, 3), (2, 5, 16), lambda p: muon(p, lr=1e-2))


def cropped(seed: int, size: int = 5) -> nn.Conv2d:
    torch.manual_seed(seed)
    return nn.Conv2d(6, 6, size, padding=size // 2)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "fused"])
def test_the_middle_of_a_kernel_trains_as_a_convolution_of_that_size(kind):
    model, small = cropped(0), cropped(3, 3)
    optimizer = MAKES[kind](list(model.parameters()))
    run(model, optimizer, batches((2, 6, 8, 8), 2, seed=9))
    middle = (slice(0, 6), slice(0, 6), slice(1, 4), slice(1, 4))
    rungs = Ladder(
        2, (Window(model.weight, (middle, None)),), (Attribute(model, "padding", ((1, 1), UNTOUCHED)),)
    )
    twin, indices = small_twin(model, optimizer, small, MAKES[kind], rungs)
    before = model.weight.detach().clone()
    run(model, optimizer, batches((2, 6, 8, 8), 20), WindowSet(rungs, optimizer))
    run(small, twin, batches((2, 6, 8, 8), 20))

    assert torch.equal(seen(model.weight, indices[model.weight]), small.weight)
    assert torch.equal(outside(model.weight, middle), outside(before, middle))
    assert model.padding == (2, 2)


@pytest.fixture
def large(monkeypatch):
    """Windows count as large, however small they are."""
    monkeypatch.setattr("greend_agent.windows.window._AT_ONCE_BYTES", 0)
    monkeypatch.setattr("greend_agent.windows.window._NARROW", 0)


def test_a_large_window_with_gaps_is_a_view_at_first_and_a_copy_once_the_level_is_held(large):
    model = conv_net()
    optimizer = MAKES["adamw"](list(model.parameters()))
    windows = WindowSet(ladder(model, 0.25, 0.5), optimizer)
    weight, place = model[0].conv3.weight, model[0].conv3.weight.data_ptr()
    where: list[bool] = []
    model[0].conv3.register_forward_pre_hook(lambda m, a: where.append(m.weight.data_ptr() == place))
    run(model, optimizer, batches((4, 12, 6, 6), 1))
    run(model, optimizer, batches((4, 12, 6, 6), 7), windows, lambda step: (0, 0, 0, 1, 1, 2, 0)[step])

    assert where == [True, True, False, False, True, False, True, True]
    assert weight.data_ptr() == place


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("kind", ["sgd", "adamw", "foreach", "fused", "rmsprop"])
def test_large_convolutions_too(kind):
    check(conv_net, conv_net(4, seed=3), (4, 12, 6, 6), MAKES[kind])


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("kind", ["sgd", "adamw", "fused"])
def test_levels_that_change_in_each_step_are_steps_of_models_of_these_sizes(kind, size, request):
    if size == "large":
        request.getfixturevalue("large")
    make = MAKES[kind]
    model = conv_net()
    optimizer = make(list(model.parameters()))
    rungs = ladder(model, 0.25, 0.5)
    windows = WindowSet(rungs, optimizer)
    xs = batches((4, 12, 6, 6), 12)
    run(model, optimizer, xs[:2])
    pattern = [0, 1, 0, 0, 2, 1, 1, 1, 0, 2]
    for number, level in enumerate(pattern):
        windows.apply(2)
        small = conv_net({0: 4, 1: 8, 2: 16}[level], seed=3)
        windows.settle(level)
        twin, indices = small_twin(model, optimizer, small, make, rungs, level)
        run(model, optimizer, [xs[2 + number]], windows, lambda step, level=level: level)
        run(small, twin, [xs[2 + number]])

        for whole, part in zip(tensors(model), tensors(small), strict=True):
            assert torch.equal(seen(whole, indices.get(whole)), part)
