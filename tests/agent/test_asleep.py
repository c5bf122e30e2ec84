"""Between two steps a window may stay on, and the parameter is whole as soon as anybody looks."""

import copy
import gc
import io
import pickle
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import greend_agent
from greend_agent.windows.asleep import is_asleep

from .nets import OPTIMIZERS, batches, net, step, train


def asleep(optimizer="sgd"):
    """A model in training at the least level, at rest after its fourth step there."""
    model = net()
    made = OPTIMIZERS[optimizer](model.parameters())
    agent = greend_agent.attach(model, made)
    train(model, made, batches(2))
    agent.request(0)
    train(model, made, batches(4))
    assert any(is_asleep(p) for p in model.parameters())
    return model, made, agent


def whole(model):
    return [p.shape for p in model.parameters()] == [p.shape for p in net().parameters()]


LOOKS = {
    "shape": lambda p, shape: p.shape == shape,
    "numel": lambda p, shape: p.numel() == shape.numel(),
    "data": lambda p, shape: p.data.shape == shape,
    "detach": lambda p, shape: p.detach().shape == shape,
    "an operation": lambda p, shape: (p + 1).shape == shape,
    "a list of tensors": lambda p, shape: len(torch._foreach_norm([p])) == 1,
    "an argument by name": lambda p, shape: torch.add(input=torch.zeros(shape), other=p).shape == shape,
    "an operator": lambda p, shape: torch.ops.aten.clone(p).shape == shape,
    "numpy": lambda p, shape: np.asarray(p.detach()).shape == tuple(shape),
    "a copy": lambda p, shape: type(copy.copy(p)) is nn.Parameter,
    "a deep copy": lambda p, shape: copy.deepcopy(p).shape == shape,
    "a pickle": lambda p, shape: pickle.loads(pickle.dumps(p)).shape == shape,
    "saving": lambda p, shape: torch.save(p, io.BytesIO()) is None,
    "words": lambda p, shape: "Parameter containing" in repr(p),
    "an index": lambda p, shape: p[0].shape == shape[1:],
    "a change in place": lambda p, shape: p.data.mul_(1.0).shape == shape,
    "a vector": lambda p, shape: nn.utils.parameters_to_vector([p]).numel() == shape.numel(),
}


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_whoever_looks_finds_the_whole_parameter_and_an_ordinary_one(look):
    model, _, _ = asleep()
    shapes = {name: p.shape for name, p in net().named_parameters()}

    for name, param in model.named_parameters():
        assert isinstance(param, nn.Parameter)
        assert LOOKS[look](param, shapes[name])
        assert type(param) is nn.Parameter
        assert "_greend_window" not in param.__dict__


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_looking_between_the_steps_changes_nothing_in_the_training(optimizer):
    looked, looked_optimizer, _ = asleep(optimizer)
    alone, alone_optimizer, _ = asleep(optimizer)
    for x in batches(6, seed=3):
        step(looked, looked_optimizer, x)
        assert whole(looked)
        step(alone, alone_optimizer, x)

    assert all(torch.equal(a, b) for a, b in zip(looked.parameters(), alone.parameters(), strict=True))


def test_a_state_dict_at_rest_is_that_of_the_whole_model():
    model, optimizer, agent = asleep("adamw")
    state = copy.deepcopy(model.state_dict())
    moments = copy.deepcopy(optimizer.state_dict())
    agent.detach()

    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert [s["exp_avg"].shape for s in moments["state"].values()] == [p.shape for p in model.parameters()]


def test_an_edit_between_two_steps_is_trained_on():
    model, _, agent = asleep()
    for param in model.parameters():
        param.data.zero_()
    x = batches(1)[0]
    model(x)

    with greend_agent.full(model):
        assert all(not p.any() for p in model.parameters())
    assert agent.level == 0


def test_zero_grad_wakes_nobody_and_the_gradient_is_gone():
    model, optimizer, _ = asleep()
    sleeping = [p for p in model.parameters() if is_asleep(p)]
    assert all(p.grad is not None for p in sleeping)

    optimizer.zero_grad()

    assert all(is_asleep(p) for p in sleeping)
    assert all(p.grad is None for p in model.parameters())


def test_the_gradient_of_one_asleep_has_the_whole_shape_and_is_the_same_one_after_waking():
    model, _, _ = asleep()
    sleeping = [p for p in model.parameters() if is_asleep(p)]
    gradients = [p.grad for p in sleeping]

    assert all(g is p.grad for g, p in zip(gradients, sleeping, strict=True))
    assert all(is_asleep(p) for p in sleeping)
    for param, gradient in zip(sleeping, gradients, strict=True):
        assert param.shape == gradient.shape
        assert torch.equal(param.grad, gradient)


def test_a_gradient_that_somebody_keeps_is_not_used_for_another_step():
    model, optimizer, _ = asleep()
    param = dict(model.named_parameters())["0.up.weight"]
    assert is_asleep(param)
    kept = param.grad
    twin, _, _ = asleep()
    before = dict(twin.named_parameters())["0.up.weight"].grad.clone()
    optimizer.zero_grad()
    step(model, optimizer, batches(1)[0])

    assert param.grad is not kept
    assert torch.equal(kept, before)


def test_gradients_that_are_not_thrown_away_add_up_whether_somebody_looked_or_not():
    (slept, _, _), (looked, _, _) = asleep(), asleep()
    assert whole(looked)
    for model in (slept, looked):
        model(batches(1, seed=3)[0]).square().mean().backward()

    for one, other in zip(slept.parameters(), looked.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_a_gradient_changed_between_two_steps_goes_on_changed():
    (plain, _, _), (doubled, _, _) = asleep(), asleep()
    for param in doubled.parameters():
        param.grad.mul_(2.0)
    before = [p.grad.clone() for p in plain.parameters()]
    for model in (plain, doubled):
        model(batches(1, seed=3)[0]).square().mean().backward()

    for one, other, was in zip(plain.parameters(), doubled.parameters(), before, strict=True):
        assert torch.allclose(other.grad - one.grad, was[tuple(slice(0, n) for n in one.shape)], atol=1e-6)


@pytest.mark.parametrize("alias", ["data", "detach", "view", "storage in shared memory"])
def test_who_holds_an_alias_of_a_weight_reads_what_was_trained(alias):
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    if alias == "storage in shared memory":
        model.share_memory()
    agent = greend_agent.attach(model, optimizer)
    held = {
        "data": lambda p: p.data,
        "detach": lambda p: p.detach(),
        "view": lambda p: p.detach().view(-1),
        "storage in shared memory": lambda p: p.data,
    }[alias]
    aliases = [held(p) for p in model.parameters()]
    train(model, optimizer, batches(2))
    agent.request(0)
    train(model, optimizer, batches(4))

    found = [a.clone() for a in aliases]  # before anybody looks at the parameters themselves

    agent.detach()
    assert all(
        torch.equal(f.view(-1), p.data.view(-1)) for f, p in zip(found, model.parameters(), strict=True)
    )


def test_a_second_step_without_a_forward_moves_the_whole_model_as_plain_torch_would():
    model, optimizer, _ = asleep("adamw")
    optimizer.step()

    assert whole(model)


def test_evaluation_in_inference_mode_leaves_weights_and_gradients_that_can_be_trained_on():
    model, optimizer, _ = asleep()
    model.eval()
    with torch.inference_mode():
        model(batches(1)[0])
        gradients = [p.grad for p in model.parameters()]
    model.train()

    assert not any(g.is_inference() for g in gradients if g is not None)
    model(batches(1)[0]).square().mean().backward()
    optimizer.step()


def test_a_model_that_is_forgotten_while_it_sleeps_is_freed():
    model, optimizer, agent = asleep()
    gone = weakref.ref(next(model.parameters()))
    del model, optimizer, agent
    gc.collect()

    assert gone() is None


def test_detaching_wakes_everybody():
    model, _, agent = asleep()
    agent.detach()

    assert all(type(p) is nn.Parameter for p in model.parameters())
