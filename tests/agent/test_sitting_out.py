"""Parameters without a part in a step are not moved by it, whatever the optimizer makes of zero gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from greend_agent.windows.ladder import UNTOUCHED, Attribute, Ladder, Window
from greend_agent.windows.window import WindowSet

from .nets import OPTIMIZERS, batches, net


def skipping(kind: str):
    """A net whose middle block is skipped at level 0, after three steps at the top."""
    model = net()
    optimizer = OPTIMIZERS[kind](model.parameters())
    block = model[1]
    ladder = Ladder(
        2,
        (),
        (Attribute(block, "forward", (lambda x: x, UNTOUCHED)),),
        (frozenset(block.parameters()), frozenset()),
    )
    for x in batches(3):
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    return model, optimizer, WindowSet(ladder, optimizer)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "adamw-foreach", "adamw-fused", "rmsprop"])
def test_a_skipped_block_is_not_moved_though_its_gradients_are_zeros(kind):
    model, optimizer, windows = skipping(kind)
    before = [p.detach().clone() for p in model[1].parameters()]
    others = [p.detach().clone() for p in model[0].parameters()]
    windows.apply(0)
    model(batches(1)[0]).square().mean().backward()
    assert not model[1].up.weight.grad.any()
    windows.before_step((optimizer,), {})
    optimizer.step()
    windows.restore()

    assert all(torch.equal(a, b) for a, b in zip(before, model[1].parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(others, model[0].parameters(), strict=True))


@pytest.mark.parametrize("named", [True, False])
def test_nor_is_it_when_the_level_is_chosen_inside_a_closure(named):
    model, optimizer, windows = skipping("sgd")
    before = [p.detach().clone() for p in model[1].parameters()]

    def closure() -> torch.Tensor:
        windows.apply(0)
        optimizer.zero_grad(set_to_none=False)
        loss = model(batches(1)[0]).square().mean()
        loss.backward()
        return loss

    arguments = ((optimizer,), {"closure": closure}) if named else ((optimizer, closure), {})
    args, kwargs = windows.before_step(*arguments)
    loss = optimizer.step(*args[1:], **kwargs)
    windows.restore()

    assert float(loss.detach()) > 0
    assert all(torch.equal(a, b) for a, b in zip(before, model[1].parameters(), strict=True))


def test_at_the_top_nothing_is_done_to_gradients_or_arguments():
    model, optimizer, windows = skipping("sgd")
    model(batches(1)[0]).square().mean().backward()
    gradients = [p.grad for p in model.parameters()]

    assert windows.before_step((optimizer,), {}) is None
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))


def test_a_moment_of_a_parameter_that_sat_out_is_not_made_up_for_steps_that_it_did_not_make():
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.99))
    up = model[0].weight
    window = Window(up, ((slice(0, 4), slice(0, 4)), (slice(0, 4), slice(0, 4)), None))
    idle = (frozenset([up, model[0].bias]), frozenset(), frozenset())
    windows = WindowSet(Ladder(3, (window,), (), idle), optimizer)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    model(x).square().sum().backward()
    optimizer.step()
    before = optimizer.state[up]["exp_avg_sq"].clone()
    for _ in range(5):  # at a level in which the parameter has no part
        windows.restore()
        windows.apply(0)
        windows.stepped()
    windows.apply(2)

    assert torch.equal(optimizer.state[up]["exp_avg_sq"], before)
