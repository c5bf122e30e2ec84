"""Code that the proof has not seen may fail at a lower level; then the forward is made again at full."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import greend_agent

from .nets import HIDDEN, WIDTH, Block, batches, net, step


class Branching(nn.Module):
    """Takes a branch that counts hidden units, once."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.rare = Block(), False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.rare:
            return x + self.block.down(self.block.up(x) * torch.ones(HIDDEN))
        return self.block(x)


def lowered(model: nn.Module):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    agent = greend_agent.attach(model, optimizer)
    step(model, optimizer, batches(1)[0])
    agent.request(0)
    step(model, optimizer, batches(1)[0])
    assert agent.level == 0
    return optimizer, agent


def test_a_forward_that_fails_because_of_the_level_is_made_again_at_full_and_training_goes_on():
    torch.manual_seed(0)
    model = Branching()
    optimizer, agent = lowered(model)

    model.rare = True
    step(model, optimizer, batches(1)[0])

    assert agent.costs == [1.0]
    assert agent.report()[0].startswith("stays full: at level 0 the forward raised RuntimeError")
    assert model.block.up.weight.grad.abs().sum(1).count_nonzero() > HIDDEN // 2
    step(model, optimizer, batches(1)[0])


def test_an_error_of_the_user_s_own_is_the_user_s_and_the_levels_stay():
    model = net()
    optimizer, agent = lowered(model)

    optimizer.zero_grad()
    with pytest.raises(RuntimeError, match="normalized_shape"):
        model(torch.randn(2, WIDTH + 1))

    step(model, optimizer, batches(1)[0])
    assert agent.level == 0
    assert len(agent.costs) == 4


def test_in_the_middle_of_an_accumulation_the_gradients_of_before_stay():
    torch.manual_seed(0)
    model = Branching()
    optimizer, _ = lowered(model)
    optimizer.zero_grad()
    model(batches(1)[0]).sum().backward()
    before = model.block.down.weight.grad.clone()

    model.rare = True
    output = model(batches(1)[0])

    grad = model.block.down.weight.grad
    assert grad.shape == (WIDTH, HIDDEN)
    assert torch.equal(grad[:, : before.shape[1]], before)
    output.sum().backward()
    optimizer.step()
