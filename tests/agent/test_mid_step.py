"""What a script may do between forward and step, and with its optimizer, while a level is lowered."""

from __future__ import annotations

import copy

import pytest
import torch

import greend_agent

from .loops import backward, lowered
from .nets import HIDDEN, WIDTH, batches, net, step, train

KINDS = ["sgd", "adamw", "adamw-fused"]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_loaded_in_mid_step_are_all_there_and_the_level_comes_back(kind):
    model, optimizer, agent = lowered(kind)
    other = net(seed=5).state_dict()
    backward(model, optimizer)
    assert model[0].up.weight.shape[0] < HIDDEN

    model.load_state_dict(other)

    assert all(torch.equal(value, other[name]) for name, value in model.named_parameters())
    optimizer.step()
    train(model, optimizer, batches(1))
    assert agent.level == 0


@pytest.mark.parametrize("kind", KINDS)
def test_optimizer_state_loaded_in_mid_step_is_all_there(kind):
    model, optimizer, agent = lowered(kind)
    saved = copy.deepcopy(optimizer.state_dict())
    train(model, optimizer, batches(3))
    backward(model, optimizer)

    optimizer.load_state_dict(copy.deepcopy(saved))  # it keeps the tensors that it is given

    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, saved["state"][number][name]), name
    optimizer.step()
    train(model, optimizer, batches(1))
    assert agent.level == 0


def test_loaded_optimizer_state_is_not_made_up_for_the_steps_of_the_state_before_it():
    model, optimizer, agent = lowered()
    saved = copy.deepcopy(optimizer.state_dict())
    train(model, optimizer, batches(20))
    optimizer.load_state_dict(copy.deepcopy(saved))  # it keeps the tensors that it is given
    agent.request(3)
    model(batches(1)[0])  # opens the windows

    for number, param in enumerate(model.parameters()):
        assert torch.equal(optimizer.state[param]["exp_avg_sq"], saved["state"][number]["exp_avg_sq"])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_changed_by_hand_at_rest_is_what_the_next_step_sees(kind):
    model, optimizer, _ = lowered(kind)
    train(model, optimizer, batches(2))
    down = model[0].down.weight
    with torch.no_grad():
        down.fill_(7)
        for value in optimizer.state[down].values():
            value.fill_(5)
    backward(model, optimizer)

    assert down.shape[1] < HIDDEN
    assert bool((down == 7).all())
    assert all(bool((value == 5).all()) for value in optimizer.state[down].values())
    optimizer.step()
    assert bool((down[:, 32:] == 7).all())


def test_gradients_made_inside_full_are_kept_whole_when_weights_are_loaded_there():
    model, optimizer, _ = lowered()
    backward(model, optimizer)
    with greend_agent.full(model):
        backward(model, optimizer)
        gradient = model[0].up.weight.grad.clone()
        model.load_state_dict(net(seed=5).state_dict())

    assert torch.equal(model[0].up.weight.grad, gradient)
    assert gradient.shape == (HIDDEN, WIDTH)
    optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
def test_a_submodule_saved_and_loaded_in_mid_step_is_whole(kind):
    model, optimizer, _ = lowered(kind)
    backward(model, optimizer)
    other = net(seed=6)[1].state_dict()

    assert model[1].state_dict()["up.weight"].shape == (HIDDEN, WIDTH)
    model[1].load_state_dict(other)

    assert torch.equal(model[1].up.weight, other["up.weight"])
    optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_changed_by_hand_in_mid_step_stay_changed_and_are_seen(kind):
    model, optimizer, _ = lowered(kind)
    backward(model, optimizer)
    with torch.no_grad():
        model[0].down.weight.fill_(7)
    live = model[0].down.weight.shape[1]

    assert bool((model.state_dict()["0.down.weight"][:, :live] == 7).all())
    with greend_agent.full(model):
        assert bool((model[0].down.weight[:, :live] == 7).all())
        assert not bool((model[0].down.weight[:, live:] == 7).any())


@pytest.mark.parametrize("kind", KINDS)
def test_weights_changed_by_hand_inside_full_stay_changed(kind):
    model, optimizer, _ = lowered(kind)
    backward(model, optimizer)
    with greend_agent.full(model), torch.no_grad():
        model[0].down.weight.fill_(7)
    optimizer.zero_grad()  # a step that does nothing
    optimizer.step()

    assert model[0].down.weight.shape == (WIDTH, HIDDEN)
    assert bool((model[0].down.weight == 7).all())


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_inside_full_ends_the_level_of_that_step(kind):
    model, optimizer, agent = lowered(kind)
    backward(model, optimizer)
    with greend_agent.full(model):
        optimizer.step()

    assert model[0].up.weight.shape[0] == HIDDEN
    train(model, optimizer, batches(1))
    assert agent.level == 0


def test_a_copy_made_inside_full_in_mid_step_is_whole():
    model, optimizer, _ = lowered()
    backward(model, optimizer)
    with greend_agent.full(model):
        copied = copy.deepcopy(model)
    optimizer.step()

    assert [p.shape for p in copied.parameters()] == [p.shape for p in model.parameters()]


def test_an_exception_in_an_accumulation_keeps_the_gradients_and_goes_on_at_the_top():
    model, optimizer, agent = lowered()
    backward(model, optimizer)
    live = model[0].up.weight.shape[0]
    gradient = model[0].up.weight.grad.clone()
    with pytest.raises(RuntimeError):
        model(torch.randn(8, 5))

    assert torch.equal(model[0].up.weight.grad[:live], gradient)
    assert not model[0].up.weight.grad[live:].any()
    model(batches(1)[0]).mean().backward()
    assert agent.level == 3
    optimizer.step()
    step(model, optimizer, batches(1)[0])
    assert agent.level == 0


def test_detach_in_mid_step_gives_back_a_whole_model_with_its_gradients():
    model, optimizer, agent = lowered()
    backward(model, optimizer)
    agent.detach()

    assert model[0].up.weight.shape == model[0].up.weight.grad.shape == (HIDDEN, WIDTH)
    optimizer.step()
    again = greend_agent.attach(model, optimizer)
    train(model, optimizer, batches(1))
    assert again is not agent
    assert len(again.costs) == 4


def test_a_step_begun_inside_full_is_a_step_at_the_top():
    model, optimizer, agent = lowered()
    with greend_agent.full(model):
        backward(model, optimizer)
        assert model[0].up.weight.shape[0] == HIDDEN
    optimizer.step()
    assert agent.level == 3
    train(model, optimizer, batches(1))
    assert agent.level == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_step_made_inside_full_in_mid_step_counts(kind):
    model, optimizer, _ = lowered(kind)
    backward(model, optimizer)
    down = model[0].down.weight
    with greend_agent.full(model):
        before = down.detach().clone()
        backward(model, optimizer)
        optimizer.step()

    assert float((down != before).float().mean()) > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_saving_and_loading_inside_full_sees_and_keeps_what_was_changed_there(kind):
    model, optimizer, _ = lowered(kind)
    backward(model, optimizer)
    down = model[0].down.weight
    with greend_agent.full(model):
        with torch.no_grad():
            down.fill_(7)
        assert bool((model.state_dict()["0.down.weight"] == 7).all())
        model[1].load_state_dict(net(seed=6)[1].state_dict())
        assert bool((down == 7).all())

    assert down.shape == (WIDTH, HIDDEN)
    assert bool((down == 7).all())
