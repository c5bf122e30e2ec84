"""Attributes have a level's values while its windows are on, and exactly what was there afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from greend_agent.windows.ladder import UNTOUCHED, Attribute, Ladder, Window
from greend_agent.windows.window import Refused, WindowSet

OWN = "marks"


class Slotted:
    __slots__ = ("heads",)

    def __init__(self) -> None:
        self.heads = 8


class Checked:
    """Has a property that does something when it is set."""

    def __init__(self) -> None:
        self._heads, self.seen = 8, []

    @property
    def heads(self) -> int:
        return self._heads

    @heads.setter
    def heads(self, value: int) -> None:
        self.seen.append(value)
        self._heads = value


def windows_for(owner: object, name: str, *values: object) -> WindowSet:
    return WindowSet(Ladder(len(values) + 1, (), (Attribute(owner, name, (*values, UNTOUCHED)),)))


def test_a_forward_that_the_instance_did_not_have_is_gone_again():
    layer = nn.Linear(2, 2)
    windows = windows_for(layer, "forward", lambda x: x)
    x = torch.ones(1, 2)
    windows.apply(0)
    assert layer(x) is x
    windows.restore()

    assert "forward" not in vars(layer)
    assert not torch.equal(layer(x), x)


def test_a_value_of_the_instance_comes_back_the_very_same():
    layer, users = nn.Conv2d(2, 2, 3), (1, 1)
    layer.padding = users
    windows = windows_for(layer, "padding", (0, 0))
    windows.apply(0)
    assert layer.padding == (0, 0)
    windows.restore()

    assert layer.padding is users


def test_a_module_as_a_value_is_not_filed_among_the_modules():
    block = nn.Sequential(nn.Linear(2, 2))
    windows = windows_for(block, "helper", nn.Identity())
    windows.apply(0)

    assert [name for name, _ in block.named_modules()] == ["", "0"]
    windows.restore()
    assert not hasattr(block, "helper")


@pytest.mark.parametrize("kind", [Slotted, Checked])
def test_slots_and_properties_are_set_and_set_back(kind):
    owner = kind()
    windows = windows_for(owner, "heads", 2)
    windows.apply(0)
    assert owner.heads == 2
    windows.restore()

    assert owner.heads == 8
    if kind is Checked:
        assert owner.seen == [2, 8]
        assert "heads" not in vars(owner)


def test_a_level_may_leave_alone_what_another_changes():
    layer = nn.Conv2d(2, 2, 3)
    windows = windows_for(layer, "stride", (3, 3), UNTOUCHED)
    strides = []
    for level in (0, 1, 2, 0, 1):
        windows.apply(level)
        strides.append(layer.stride)
    windows.restore()

    assert strides == [(3, 3), (1, 1), (1, 1), (3, 3), (1, 1)]
    assert layer.stride == (1, 1)


def test_what_the_users_code_sets_meanwhile_is_not_undone():
    layer = nn.Conv2d(2, 2, 3)
    windows = windows_for(layer, "padding", (1, 1))
    windows.apply(0)
    layer.padding = (2, 2)
    windows.restore()

    assert layer.padding == (2, 2)


def test_inside_lifted_the_attributes_are_the_users():
    layer = nn.Linear(4, 4)
    windows = windows_for(layer, "out_features", 2)
    windows.apply(0)
    with windows.lifted():
        assert layer.out_features == 4
    assert layer.out_features == 2
    windows.restore()
    assert layer.out_features == 4


def test_an_error_while_windows_are_put_on_leaves_no_attribute_behind():
    param, layer = nn.Parameter(torch.ones(4, 4)), nn.Linear(4, 4)
    optimizer = torch.optim.SGD([param], lr=0.1)
    optimizer.state[param]["odd"] = torch.zeros(7)
    window = Window(param, ((slice(0, 2), slice(0, 4)), None))
    windows = WindowSet(Ladder(2, (window,), (Attribute(layer, "out_features", (2, UNTOUCHED)),)), optimizer)
    with pytest.raises(Refused):
        windows.apply(0)

    assert layer.out_features == 4
    assert optimizer.state[param]["odd"].shape == (7,)
