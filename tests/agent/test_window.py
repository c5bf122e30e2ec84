"""A window is put on and taken off; between two steps nobody can see that it was there."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import greend_agent
from greend_agent.windows.ladder import Ladder, Window
from greend_agent.windows.window import Refused, WindowSet

from .nets import HIDDEN, OPTIMIZERS, batches, net, step, train

ROWS, COLUMNS = (slice(0, 2), slice(0, 3)), (slice(0, 4), slice(0, 2))


def weight() -> nn.Parameter:
    return nn.Parameter(torch.arange(12.0).reshape(4, 3))


def one_window(index, optimizer=None, param=None) -> tuple[nn.Parameter, WindowSet]:
    param = weight() if param is None else param
    return param, WindowSet(Ladder(2, (Window(param, (index, None)),)), optimizer)


@pytest.mark.parametrize("index", [ROWS, COLUMNS], ids=["rows", "columns"])
def test_a_window_sees_a_part_and_what_is_done_to_it_stays(index):
    param, windows = one_window(index)
    identity, storage, expected = id(param), param.data_ptr(), param.detach().clone()

    windows.apply(0)
    assert param.shape == expected[index].shape
    with torch.no_grad():
        param.add_(100)
    windows.restore()

    expected[index] += 100
    assert torch.equal(param, expected)
    assert (id(param), param.data_ptr(), windows.level) == (identity, storage, windows.top)


def test_the_same_level_again_and_the_top_twice_change_nothing():
    param, windows = one_window(ROWS)
    windows.apply(0)
    windows.apply(0)
    assert param.shape == (2, 3)
    windows.apply(1)
    windows.apply(1)
    windows.restore()

    assert torch.equal(param, weight())


@pytest.mark.parametrize("keep", [True, False])
def test_gradients_have_zeros_outside_the_window_when_it_is_taken_off(keep):
    param, windows = one_window(COLUMNS)
    windows.apply(0)
    (param * 2).sum().backward()
    windows.restore(keep_gradients=keep)

    expected = torch.zeros(4, 3)
    expected[COLUMNS] = 2
    assert torch.equal(param.grad, expected)


def test_tensor_hooks_survive_a_window():
    param, windows = one_window(ROWS)
    seen: list[torch.Size] = []
    param.register_hook(lambda grad: seen.append(grad.shape))
    for level in (0, 1):
        windows.apply(level)
        param.sum().backward()
        windows.restore()

    assert seen == [(2, 3), (4, 3)]


def test_a_backward_through_a_graph_from_before_the_change_is_an_error_and_not_a_wrong_gradient():
    param, windows = one_window(ROWS)
    windows.apply(0)
    old = param.square().sum()
    windows.restore()

    with pytest.raises(RuntimeError):
        old.backward()


def test_state_that_has_no_place_is_refused_and_all_is_full_again():
    param = weight()
    other = weight()
    optimizer = torch.optim.SGD([param, other], lr=0.1)
    optimizer.state[other]["factor"] = torch.zeros(7)
    windows = WindowSet(Ladder(2, (Window(param, (ROWS, None)), Window(other, (ROWS, None)))), optimizer)

    with pytest.raises(Refused, match="'factor' has shape"):
        windows.apply(0)

    assert param.shape == other.shape == (4, 3)
    assert windows.level == windows.top


def test_odd_state_born_inside_a_window_is_refused_after_all_is_full():
    param = weight()
    optimizer = torch.optim.SGD([param], lr=0.1)
    _, windows = one_window(ROWS, optimizer, param)
    windows.apply(0)
    optimizer.state[param]["factor"] = torch.zeros(7)

    with pytest.raises(Refused, match="'factor' has shape"):
        windows.restore()

    assert param.shape == (4, 3)
    assert not optimizer.state[param]


@pytest.mark.parametrize(("name", "outside"), [("exp_avg", 0.0), ("exp_avg_sq", 5.0)])
def test_state_born_inside_a_window_becomes_full(name, outside):
    param = weight()
    optimizer = torch.optim.SGD([param], lr=0.1)
    _, windows = one_window(ROWS, optimizer, param)
    windows.apply(0)
    optimizer.state[param].update({name: torch.full((2, 3), 5.0), "step": torch.tensor(3.0)})
    windows.restore()

    state = optimizer.state[param]
    assert state[name].shape == (4, 3)
    assert bool((state[name][:2] == 5).all())
    assert bool((state[name][2:] == outside).all())
    assert float(state["step"]) == 3


def test_reading_the_state_leaves_no_empty_entry_that_an_optimizer_would_take_for_its_own():
    param = weight()
    optimizer = torch.optim.Adam([param])
    _, windows = one_window(ROWS, optimizer, param)
    windows.apply(0)
    windows.restore()

    assert param not in optimizer.state


def picture(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[object]:
    """What must never change at rest: who the parameters are, where they lie, the shapes of the state."""
    return [
        (id(p), p.data_ptr(), p.shape, p.stride(), p.requires_grad, shapes(optimizer.state[p]))
        for p in model.parameters()
    ]


def shapes(state: dict) -> dict:
    return {name: v.shape for name, v in state.items() if isinstance(v, torch.Tensor)}


LEVELS = ("level 0", "level 1", "level 2", "top")
ACTIONS = (*LEVELS, "forward", "raise", "step", "full", "save", "load", "eval", "look", "zero", "penalty")


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(OPTIMIZERS)), st.lists(st.sampled_from(ACTIONS), max_size=24))
def test_whatever_a_script_does_in_whatever_order_the_model_is_whole_between_steps(kind, actions):
    model = net(depth=2, drop=0.1)
    optimizer = OPTIMIZERS[kind](model.parameters())
    agent = greend_agent.attach(model, optimizer)
    train(model, optimizer, batches(1))
    whole, x = picture(model, optimizer), batches(1)[0]
    keys = {k: v.shape for k, v in model.state_dict().items()}

    for action in actions:
        if action.startswith("level"):
            agent.request(int(action[-1]))
        elif action == "top":
            agent.request(3)
        elif action == "forward":
            model(x).square().mean().backward()
        elif action == "raise":
            with pytest.raises(RuntimeError):
                model(x[:, :5])
            assert model[0].up.weight.shape[0] == HIDDEN
        elif action == "step":
            optimizer.step()
            optimizer.zero_grad()
            assert picture(model, optimizer) == whole
        elif action == "full":
            with greend_agent.full(model):
                assert [p.shape for p in model.parameters()] == [entry[2] for entry in whole]
        elif action == "save":
            assert {k: v.shape for k, v in model.state_dict().items()} == keys
            optimizer.state_dict()
        elif action == "look":
            assert picture(model, optimizer) == whole or model[0].up.weight.shape[0] < HIDDEN
        elif action == "zero":
            optimizer.zero_grad(set_to_none=False)
        elif action == "penalty":
            sum(p.square().sum() for p in model.parameters()).backward()
        elif action == "load":
            model.load_state_dict(net(depth=2, seed=3).state_dict())
        else:
            model.eval()
            with torch.no_grad():
                model(x)
            model.train()

    step(model, optimizer, x)
    assert picture(model, optimizer) == whole
    assert len(agent.costs) == 4, agent.report()
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    agent.detach()
