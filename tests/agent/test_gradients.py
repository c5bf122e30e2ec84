"""After a lowered step a gradient has the shape of the parameter, as a loop expects that reads it there."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from greend_agent.windows.gradients import Unpadded, padded, unpadded

from .loops import backward, lowered
from .nets import HIDDEN, WIDTH, batches, step, train


def made() -> tuple[nn.Parameter, torch.Tensor]:
    """A parameter with an unpadded gradient, and that gradient padded."""
    param, small = nn.Parameter(torch.zeros(4, 3)), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    blocks = [((slice(1, 3), slice(0, 2)), (slice(None), slice(None)))]
    param.grad = unpadded(small, param.data, blocks)
    return param, padded(small, param.data, blocks)


LOOKS = {
    "norm": lambda g: g.norm(),
    "function": lambda g: torch.norm(g),
    "foreach": lambda g: torch._foreach_norm([g])[0],
    "numpy": lambda g: torch.from_numpy(g.numpy().copy()),
    "list": lambda g: torch.tensor(g.tolist()),
    "flat": lambda g: torch.cat([g.view(-1), g.flatten()]),
    "data": lambda g: g.data.clone(),
    "detach": lambda g: g.detach(),
    "item": lambda g: torch.tensor(g[1, 1].item()),
    "bool": lambda g: torch.isfinite(g).all(),
    "copy": lambda g: copy.deepcopy(g),
    "half": lambda g: g.to(torch.bfloat16),
    "text": lambda g: torch.tensor(len(repr(g))),
}


@pytest.mark.parametrize("look", LOOKS)
def test_whatever_is_asked_of_it_the_answer_is_that_of_the_padded_one(look):
    param, whole = made()

    assert param.grad.shape == whole.shape
    assert torch.equal(LOOKS[look](param.grad), LOOKS[look](whole))


def test_it_is_saved_as_an_ordinary_tensor():
    param, whole = made()
    file = io.BytesIO()
    torch.save(param.grad, file)
    file.seek(0)

    loaded = torch.load(file)
    assert type(loaded) is torch.Tensor
    assert torch.equal(loaded, whole)


def test_a_backward_adds_to_it():
    param, whole = made()
    (param * 2).sum().backward()

    assert torch.equal(param.grad + 0, whole + 2)


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
@pytest.mark.parametrize("extra", [{"foreach": False}, {"foreach": True}, {"fused": True}])
def test_an_optimizer_steps_with_it(kind, extra):
    param, whole = made()
    other = nn.Parameter(param.detach().clone())
    other.grad = whole
    for p in (param, other):
        getattr(torch.optim, kind)([p], lr=0.1, **extra).step()

    assert torch.equal(param, other)


def test_gradient_norms_read_after_the_step_are_those_read_before():
    model, optimizer, _ = lowered()
    for x in batches(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        before = [float(p.grad.norm()) for p in model.parameters()]
        narrow = model[0].up.weight.grad.clone()
        optimizer.step()

        assert model[0].up.weight.grad.shape == (HIDDEN, WIDTH)
        assert [float(p.grad.norm()) for p in model.parameters()] == pytest.approx(before)
        assert torch.equal(model[0].up.weight.grad[: len(narrow)], narrow)
        assert not model[0].up.weight.grad[len(narrow) :].any()


@pytest.mark.parametrize("kind", ["sgd", "adamw", "adamw-fused"])
def test_zero_grad_without_none_after_the_step_trains_as_with_it(kind):
    def weights(none: bool) -> list[torch.Tensor]:
        model, optimizer, agent = lowered(kind)
        optimizer.zero_grad()
        for x in batches(6):
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=none)
        assert agent.level == 0
        return [p.detach().clone() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(weights(True), weights(False), strict=True))


@pytest.mark.parametrize("kind", ["sgd", "adamw-fused"])
def test_gradients_that_are_there_before_the_forward_count(kind):
    def weights(first: bool) -> list[torch.Tensor]:
        model, optimizer, _ = lowered(kind)
        for x in batches(4):
            optimizer.zero_grad()
            penalty = sum(p.square().sum() for p in model.parameters())
            if first:
                penalty.backward()
                model(x).square().mean().backward()
            else:
                loss = model(x).square().mean()
                sum(p.square().sum() for p in model.parameters()).backward()
                loss.backward()
            optimizer.step()
        return [p.detach().clone() for p in model.parameters()]

    for a, b in zip(weights(True), weights(False), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_gradients_never_zeroed_go_on_adding_up():
    model, optimizer, _ = lowered("sgd")
    backward(model, optimizer)
    up = model[0].up.weight
    optimizer.step()
    once = up.grad.clone()
    model(batches(1)[0]).square().mean().backward()
    narrow = up.grad.clone()
    optimizer.step()

    assert once.shape == up.grad.shape == (HIDDEN, WIDTH)
    assert not torch.equal(narrow, once[: len(narrow)])
    assert torch.equal(up.grad[: len(narrow)], narrow)


def test_the_next_step_at_the_top_has_ordinary_gradients():
    model, optimizer, agent = lowered()
    train(model, optimizer, batches(2))
    assert type(model[0].up.weight.grad) is Unpadded
    agent.request(3)
    step(model, optimizer, batches(1)[0])

    assert all(type(p.grad) is torch.Tensor for p in model.parameters())
