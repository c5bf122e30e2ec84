"""Between two steps at a held level all is whole, whoever looks, and what is changed there counts."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch

from greend_agent.windows.resting import Resting
from greend_agent.windows.window import WindowSet

from .by_hand import attention_net, ladder, run
from .loops import backward, lowered
from .nets import HIDDEN, batches, train


def held(steps: int = 4):
    """A model some steps into a level, its moments resting, and the parameter of a strided window."""
    model, optimizer, agent = lowered()
    train(model, optimizer, batches(steps))
    down = model[0].down.weight
    assert type(optimizer.state[down]) is Resting
    return model, optimizer, agent, down


LOOKS: dict[str, Callable[[dict], object]] = {
    "item": lambda state: state["exp_avg"],
    "get": lambda state: state.get("exp_avg"),
    "dict": lambda state: dict(state)["exp_avg"],
    "unpacked": lambda state: {**state}["exp_avg"],
    "values": lambda state: list(state.values())[1],
    "items": lambda state: dict(state.items())["exp_avg"],
    "copy": lambda state: copy.copy(state)["exp_avg"],
    "union": lambda state: (state | {})["exp_avg"],
    "reversed union": lambda state: ({} | state)["exp_avg"],
    "pickle": lambda state: pickle.loads(pickle.dumps(state))["exp_avg"],
    "loop": lambda state: {name: state[name] for name in state}["exp_avg"],
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_look_at_resting_state_sees_full_tensors_with_todays_values(look):
    _, optimizer, _, down = held()
    twin_model, twin_optimizer, _, twin = held()
    expected = twin_optimizer.state_dict()["state"][
        next(n for n, p in enumerate(twin_model.parameters()) if p is twin)
    ]["exp_avg"]

    found = LOOKS[look](optimizer.state[down])

    assert found.shape == (16, HIDDEN)
    assert torch.equal(found, expected)


def test_looking_in_each_step_changes_no_bit_of_the_training():
    def weights(look: bool) -> list[torch.Tensor]:
        model, optimizer, _, down = held()
        for x in batches(6, seed=4):
            train(model, optimizer, [x])
            if look:
                assert optimizer.state[down]["exp_avg"].shape == down.shape
        return [p.detach().clone() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(weights(True), weights(False), strict=True))


def test_moments_changed_at_rest_are_those_of_the_next_step():
    model, optimizer, _, down = held()
    for value in optimizer.state[down].values():
        value.fill_(3)
    for name in ("exp_avg", "exp_avg_sq"):
        optimizer.state[down][name] = torch.full_like(down, 5)
    backward(model, optimizer)

    assert down.shape[1] < HIDDEN
    assert all(bool((optimizer.state[down][n] == 5).all()) for n in ("exp_avg", "exp_avg_sq"))
    assert float(optimizer.state[down]["step"]) == 3
    optimizer.step()
    assert bool((optimizer.state[down]["exp_avg"][:, -1] == 5).all())


def test_state_moved_by_a_loop_over_all_of_it_is_the_state_of_the_next_step():
    model, optimizer, _, down = held()
    for state in optimizer.state.values():
        for name, value in state.items():
            state[name] = value.clone().fill_(2)
    train(model, optimizer, batches(1))

    assert float(optimizer.state[down]["step"]) == 3
    assert bool((optimizer.state[down]["exp_avg"][:, -1] == 2).all())


@pytest.mark.parametrize("how", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_of_the_optimizer_at_rest_has_ordinary_full_state(how):
    _, optimizer, _, _ = held()

    copied = how(optimizer)

    for param, state in copied.state.items():
        assert type(state) is dict
        assert state["exp_avg"].shape == param.shape


def test_weights_changed_by_data_at_rest_are_seen_by_the_next_step_though_no_version_tells():
    model, optimizer, _, down = held()
    version = down._version
    down.data.clamp_(-1e-3, 1e-3)
    assert down._version == version
    backward(model, optimizer)

    assert down.shape[1] < HIDDEN
    assert float(down.detach().abs().max()) <= 1e-3 + 1e-9


def test_parameters_given_other_memory_at_rest_are_narrowed_there():
    model, optimizer, agent, down = held()
    vector = torch.nn.utils.parameters_to_vector(model.parameters())
    torch.nn.utils.vector_to_parameters(vector * 0.5, model.parameters())
    half = down.detach().clone()
    train(model, optimizer, batches(2))

    assert agent.level == 0
    assert torch.equal(down[:, -1], half[:, -1])
    assert not torch.equal(down[:, 0], half[:, 0])


def test_detach_at_rest_leaves_the_optimizer_its_own_dictionaries():
    model, optimizer, agent, _ = held()
    agent.detach()

    assert all(type(state) is dict for state in optimizer.state.values())
    assert all(s["exp_avg"].shape == p.shape for p, s in optimizer.state.items())
    train(model, optimizer, batches(1))


def test_state_that_is_cleared_at_rest_is_born_anew():
    model, optimizer, agent, down = held()
    optimizer.state.clear()
    train(model, optimizer, batches(2))

    assert agent.level == 0
    assert optimizer.state[down]["exp_avg"].shape == down.shape
    assert float(optimizer.state[down]["step"]) == 2


def test_a_gathered_parameter_is_whole_at_rest_and_its_blocks_come_back():
    model = attention_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    xs = [torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(s)) for s in range(4)]
    run(model, optimizer, xs[:1])
    windows = WindowSet(ladder(model, 0.5), optimizer)
    qkv = model[0].qkv.weight
    before, moment = qkv.detach().clone(), optimizer.state[qkv]["momentum_buffer"].clone()
    run(model, optimizer, xs[1:], windows)

    moved = (qkv != before).any(dim=1).view(3, 4, 8).any(dim=2)
    assert moved.tolist() == [[True, True, False, False]] * 3
    changed = (optimizer.state[qkv]["momentum_buffer"] != moment).any(dim=1).view(3, 4, 8).any(dim=2)
    assert changed.tolist() == [[True, True, False, False]] * 3
