"""As much computation as each input needs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import greend_agent
from greend_agent.cascade import cascade

from .nets import OPTIMIZERS, WIDTH, net


def classifier():
    """A net that has learned a little, at all its levels, and samples of which it is more or less sure."""
    model = net(drop=0.2)
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = greend_agent.attach(model, optimizer)
    generator = torch.Generator().manual_seed(3)
    x = 2 * torch.randn(64, WIDTH, generator=generator)
    y = x[:, :4].argmax(dim=1)
    for step in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        agent.request(step % 4)
    assert len(agent.costs) == 4, agent.report()
    return model, agent, x


def at(agent: greend_agent.Agent, model: nn.Module, level: int, x: torch.Tensor) -> torch.Tensor:
    model.eval()
    with agent.at(level), torch.no_grad():
        output = model(x)
    model.train()
    return output


def test_samples_that_are_passed_on_get_what_the_top_gives_them_and_the_others_what_the_low_level_gives():
    model, agent, x = classifier()
    low, top = at(agent, model, 0, x), at(agent, model, 3, x)
    found = cascade(agent, x, 0.9)

    assert 0 < int(found.escalated.sum()) < len(x)
    assert torch.equal(found.escalated, low.softmax(-1).amax(-1) < 0.9)
    assert torch.equal(found.logits[~found.escalated], low[~found.escalated])
    assert torch.equal(found.logits[found.escalated], at(agent, model, 3, x[found.escalated]))
    assert torch.allclose(found.logits[found.escalated], top[found.escalated], atol=1e-5)


def test_the_threshold_goes_from_nothing_to_everything_and_so_does_the_cost():
    _, agent, x = classifier()
    found = [cascade(agent, x, threshold) for threshold in (0.0, 0.7, 0.95, 1.1)]

    passed = [int(one.escalated.sum()) for one in found]
    assert passed == sorted(passed)
    assert (passed[0], passed[-1]) == (0, len(x))
    assert found[0].cost(agent) == pytest.approx(agent.costs[0])
    assert found[1].cost(agent) == pytest.approx(agent.costs[0] + passed[1] / len(x))


def test_the_model_is_left_in_the_modes_it_was_in_whole_and_without_gradients():
    model, agent, x = classifier()
    model[1].eval()
    shapes = [p.shape for p in model.parameters()]
    state = torch.get_rng_state()
    found = cascade(agent, x, 0.9)

    assert [m.training for m in (model, model[0], model[0].drop, model[1], model[1].drop)] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert [p.shape for p in model.parameters()] == shapes
    assert torch.equal(torch.get_rng_state(), state)
    assert not found.logits.requires_grad


def test_in_mid_step_it_says_no_and_disturbs_nothing():
    model, agent, x = classifier()
    model(x)
    with pytest.raises(RuntimeError, match="a step is under way"):
        cascade(agent, x, 0.9)

    assert all(m.training for m in model.modules())


def test_a_model_without_levels_answers_at_the_top():
    model = net()
    agent = greend_agent.attach(model, OPTIMIZERS["sgd"](model.parameters()))
    x = torch.randn(4, WIDTH)
    found = cascade(agent, x, 0.9)

    assert torch.equal(found.logits, at(agent, model, 0, x))
