"""The top level is the user's training, bit for bit; a low level is a physically small model, bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import greend_agent

from .nets import HIDDEN, OPTIMIZERS, batches, net, step, train


def attached(model: nn.Module, optimizer: torch.optim.Optimizer, levels: int = 4) -> greend_agent.Agent:
    """Attach and let the agent see its first step."""
    agent = greend_agent.attach(model, optimizer, levels=levels)
    step(model, optimizer, batches(1, seed=99)[0])
    assert len(agent.costs) > 1, agent.report()
    return agent


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_with_the_level_never_lowered_the_weights_are_those_of_a_run_without_greend(kind):
    def run(with_greend: bool) -> list[torch.Tensor]:
        model = net(drop=0.3)  # so that random numbers matter
        optimizer = OPTIMIZERS[kind](model.parameters())
        agent = greend_agent.attach(model, optimizer) if with_greend else None
        torch.manual_seed(7)
        train(model, optimizer, batches(25))
        if agent is not None:
            assert len(agent.costs) == 4, agent.report()
        return weights(model)

    assert same(run(True), run(False))


def test_accumulation_clipping_and_evaluation_in_between_stay_bit_for_bit_at_the_top():
    def run(with_greend: bool) -> list[torch.Tensor]:
        model = net(drop=0.3)
        optimizer = OPTIMIZERS["adamw"](model.parameters())
        if with_greend:
            greend_agent.attach(model, optimizer)
        torch.manual_seed(7)
        xs = batches(24)
        for first, second in zip(xs[::2], xs[1::2], strict=True):
            for x in (first, second):
                (model(x).square().mean() / 2).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
            model.eval()
            with torch.no_grad():
                model(first)
            model.train()
        return weights(model)

    assert same(run(True), run(False))


def small_twin(model: nn.Sequential, optimizer: torch.optim.Optimizer, hidden: int, kind: str):
    """A physically small model with the first hidden units of a model, and the same optimizer state."""
    small = net(hidden=hidden)
    twin = OPTIMIZERS[kind](small.parameters())
    for param, part in zip(model.parameters(), small.parameters(), strict=True):
        index = tuple(slice(0, n) for n in part.shape)
        with torch.no_grad():
            part.copy_(param[index])
        state = {
            name: value[index].clone() if value.numel() > 1 else value.clone()
            for name, value in optimizer.state[param].items()
            if isinstance(value, torch.Tensor)
        }
        twin.state[part] = state
    return small, twin


@pytest.mark.parametrize("kind", ["sgd", "adamw", "adamw-foreach", "adamw-fused", "rmsprop", "adagrad"])
def test_steps_at_level_0_are_those_of_a_physically_small_model(kind):
    model = net()
    optimizer = OPTIMIZERS[kind](model.parameters())
    agent = attached(model, optimizer)
    agent.request(0)
    widths: list[int] = []
    model[0].up.register_forward_hook(lambda module, args, out: widths.append(module.weight.shape[0]))
    probe = copy.deepcopy(model)
    step(model, optimizer, batches(1, seed=5)[0])
    hidden = widths[-1]
    assert hidden < HIDDEN
    small, twin = small_twin(model, optimizer, hidden, kind)
    outside = [(p, p.detach().clone()) for p in model.parameters()]

    xs = batches(20, seed=3)
    train(model, optimizer, xs)
    train(small, twin, xs)

    for param, part in zip(model.parameters(), small.parameters(), strict=True):
        index = tuple(slice(0, n) for n in part.shape)
        assert torch.equal(param[index], part)
        for name, value in twin.state[part].items():
            if isinstance(value, torch.Tensor) and value.numel() > 1:
                assert torch.equal(optimizer.state[param][name][index], value), name
    for (param, before), part in zip(outside, small.parameters(), strict=True):
        mask = torch.ones_like(param, dtype=torch.bool)
        mask[tuple(slice(0, n) for n in part.shape)] = False
        assert torch.equal(param[mask], before[mask])  # moved by exactly nothing
    assert isinstance(probe, nn.Sequential)


def test_at_rest_parameters_are_the_same_objects_on_the_same_storage():
    model = net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    before = [(id(p), p.data_ptr(), p.shape, p.stride()) for p in model.parameters()]
    agent = attached(model, optimizer)
    for level in (0, 2, 1, 3, 0):
        agent.request(level)
        train(model, optimizer, batches(2))

    assert [(id(p), p.data_ptr(), p.shape, p.stride()) for p in model.parameters()] == before


def test_a_change_of_level_waits_for_the_next_step():
    model = net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = attached(model, optimizer)
    widths: list[int] = []
    model[0].up.register_forward_hook(lambda module, args, out: widths.append(module.weight.shape[0]))
    x = batches(1)[0]

    model(x).mean().backward()
    agent.request(0)
    model(x).mean().backward()  # the same accumulation
    optimizer.step()
    step(model, optimizer, x)

    assert widths[0] == widths[1] == HIDDEN
    assert widths[2] < HIDDEN


def test_state_dict_keys_and_shapes_never_change_not_even_in_mid_step():
    model = net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    train(model, optimizer, batches(1))
    model_shapes = {k: v.shape for k, v in model.state_dict().items()}
    block_shapes = {k: v.shape for k, v in model[1].state_dict().items()}
    agent = attached(model, optimizer)
    state_shapes = {n: {k: v.shape for k, v in s.items()} for n, s in optimizer.state_dict()["state"].items()}

    agent.request(0)
    optimizer.zero_grad()
    model(batches(1)[0]).mean().backward()

    assert model[0].up.weight.shape[0] < HIDDEN  # in mid-step indeed
    assert {k: v.shape for k, v in model.state_dict().items()} == model_shapes
    assert {k: v.shape for k, v in model[1].state_dict().items()} == block_shapes
    assert {
        n: {k: v.shape for k, v in s.items()} for n, s in optimizer.state_dict()["state"].items()
    } == state_shapes
    optimizer.step()
    assert {k: v.shape for k, v in model.state_dict().items()} == model_shapes


def test_a_checkpoint_of_a_lowered_run_loads_into_the_plain_model_and_back():
    model = net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = attached(model, optimizer)
    agent.request(0)
    train(model, optimizer, batches(3))
    plain = net(seed=4)

    plain.load_state_dict(model.state_dict())
    assert same(weights(plain), weights(model))
    model.load_state_dict(net(seed=5).state_dict())
    train(model, optimizer, batches(2))

    assert agent.level == 0


def test_a_copy_and_a_pickle_of_the_model_are_ordinary_models(tmp_path):
    model = net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = attached(model, optimizer)
    agent.request(0)
    train(model, optimizer, batches(2))

    copied = copy.deepcopy(model)
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)

    for other in (copied, loaded):
        assert same(weights(other), weights(model))
        widths: list[int] = []
        other[0].up.register_forward_hook(lambda m, a, o, widths=widths: widths.append(m.weight.shape[0]))
        train(other, OPTIMIZERS["adamw"](other.parameters()), batches(2))
        assert widths == [HIDDEN, HIDDEN]


def test_a_forward_that_raises_leaves_a_full_model_and_the_job_goes_on():
    model = net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = attached(model, optimizer)
    agent.request(0)

    with pytest.raises(RuntimeError):
        model(torch.randn(8, 5))

    assert model[0].up.weight.shape[0] == HIDDEN
    train(model, optimizer, batches(2))
    assert agent.level == 0


def test_full_shows_the_original_shapes_in_mid_step_and_changes_nothing():
    def run(look: bool) -> list[torch.Tensor]:
        model = net()
        optimizer = OPTIMIZERS["adamw"](model.parameters())
        agent = attached(model, optimizer)
        agent.request(0)
        for x in batches(3):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            if look:
                with greend_agent.full(model):
                    assert model[0].up.weight.shape[0] == HIDDEN
                assert model[0].up.weight.shape[0] < HIDDEN
            loss.backward()
            optimizer.step()
        return weights(model)

    assert same(run(True), run(False))


def test_detach_gives_the_model_back_without_a_hook():
    model = net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = attached(model, optimizer)
    agent.request(0)
    train(model, optimizer, batches(2))
    agent.detach()

    assert not any(m._forward_pre_hooks or m._forward_hooks or m._state_dict_hooks for m in model.modules())
    assert not optimizer._optimizer_step_post_hooks
    step(model, optimizer, batches(1)[0])
    assert model[0].up.weight.shape[0] == HIDDEN
