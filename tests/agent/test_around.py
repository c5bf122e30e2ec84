"""A forward in the place of a module's own, also of the one that the training loop calls itself."""

from __future__ import annotations

import copy
import inspect
import pickle

import torch
from torch import nn

import greend_agent
from greend_agent.knobs.around import Around, Front, both, fronted
from greend_agent.windows.ladder import UNTOUCHED, Attribute, Ladder
from greend_agent.windows.window import WindowSet

from .nets import OPTIMIZERS, batches, net, step, train


class Twice(Around):
    def __call__(self, *args, **kwargs):
        return 2 * self.inner(*args, **kwargs)


class Plus(Around):
    def __call__(self, *args, **kwargs):
        return 1 + self.inner(*args, **kwargs)


def test_one_goes_over_another_in_either_order():
    own = lambda x: x + 10  # noqa: E731

    assert Twice(own).over(Plus(own))(1) == 24
    assert Plus(own).over(Twice(own))(1) == 23


def test_of_two_dials_values_a_forward_goes_around_whatever_the_other_set():
    skip = lambda x: x  # noqa: E731

    assert both(UNTOUCHED, skip) is skip
    assert both(Plus(abs), Twice(abs))(-5) == 12
    assert both(skip, Twice(abs))(-5) == both(Twice(abs), skip)(-5) == -10
    assert both(3, 4) == 4


def test_a_level_chosen_in_a_hook_of_the_very_module_that_is_called_holds_for_that_call():
    model = nn.Linear(4, 4)
    x = torch.ones(2, 4)
    whole = model(x)
    ladder = Ladder(2, (), (Attribute(model, "forward", (Twice(model.forward), UNTOUCHED)),))
    ladder, fronts = fronted(ladder, [model])
    windows = WindowSet(ladder)
    handle = model.register_forward_pre_hook(lambda *_: windows.apply(0))

    assert torch.equal(model(x), 2 * whole)
    windows.restore()
    handle.remove()
    assert torch.equal(model(x), whole)
    for front in fronts:
        front.remove()
    assert "forward" not in vars(model)


def test_modules_inside_the_one_that_is_called_need_no_front():
    model = nn.Sequential(nn.Linear(4, 4))
    ladder = Ladder(2, (), (Attribute(model[0], "forward", (Twice(model[0].forward), UNTOUCHED)),))

    assert fronted(ladder, [model]) == (ladder, [])


def test_a_front_gives_back_what_the_instance_had_and_leaves_what_came_after_it():
    model = nn.Linear(4, 4)
    own = model.forward = lambda x: x
    front = Front(model)
    assert model(3) == 3
    front.remove()
    assert vars(model)["forward"] is own

    front = Front(model)
    model.forward = later = lambda x: -x
    front.remove()
    assert vars(model)["forward"] is later


def in_parts():
    model = net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = greend_agent.attach(model, optimizer, knobs=["ffn", "microbatch"])
    step(model, optimizer, batches(1)[0])
    assert len(agent.costs) > 1, agent.report()
    return model, optimizer, agent


def test_the_first_forward_of_a_step_is_at_the_level_of_the_step_and_at_rest_the_model_is_whole():
    model, optimizer, agent = in_parts()
    sizes: list[int] = []
    model[0].register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    agent.request(0)
    model(batches(1)[0])
    assert sizes == [2, 2, 2, 2]

    optimizer.step()
    sizes.clear()
    model.eval()(batches(1)[0])
    assert sizes == [8]
    agent.detach()
    assert "forward" not in vars(model)


def test_a_model_with_a_front_is_copied_and_saved_as_an_ordinary_one():
    model, optimizer, agent = in_parts()
    agent.request(0)
    train(model, optimizer, batches(2))
    x = batches(1)[0]
    whole = model.eval()(x)
    assert b"greend_agent.knobs" not in pickle.dumps(model)

    again = copy.deepcopy(copy.deepcopy(model))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), again):
        assert torch.equal(other(x), whole)
        other[0].up.weight.data.zero_()
        assert not torch.equal(other(x), whole)  # it runs its own weights
        assert list(inspect.signature(other.forward).parameters) == ["input"]
