"""A parameter between two steps while its window stays on: it is whole as soon as anybody looks.

To make every parameter whole after each step and narrow again before the next one cost 4 % of a step of
26 ms and 17 % of one of 3 ms, though between most steps nobody looks at any. So what lies in the model until
the next step is the same object as ever, of a class that first becomes whole, and then an ordinary parameter
again, when it is asked for anything: an attribute, an operation, a copy. Only its gradient is told without
that, as every `zero_grad` asks for it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils._pytree import tree_iter

_WINDOW = "_greend_window"


class Window(Protocol):
    """What a parameter that is asleep knows of its window."""

    def wake(self) -> None:
        """Make the parameter whole, and awake."""
        ...

    def shown_gradient(self) -> torch.Tensor | None:
        """Return the gradient in the shape of the whole parameter, always the same one."""
        ...

    def drop_gradient(self) -> None:
        """Forget the gradient."""
        ...


class Asleep(nn.Parameter):
    """A parameter whose window is on and is not to be seen."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Wake all that is asked, and do it."""
        for one in tree_iter((args, kwargs)):
            wake(one)
        return func(*args, **(kwargs or {}))

    @property
    def grad(self) -> torch.Tensor | None:
        """The gradient, in the shape of the whole parameter."""
        window: Window = self.__dict__[_WINDOW]
        return window.shown_gradient()

    @grad.setter
    def grad(self, value: torch.Tensor | None) -> None:
        window: Window = self.__dict__[_WINDOW]
        if value is None:
            window.drop_gradient()
        else:
            window.wake()
            self.grad = value

    @grad.deleter
    def grad(self) -> None:
        window: Window = self.__dict__[_WINDOW]
        window.drop_gradient()

    # These two ask for the class before they ask for anything of the tensor.

    def __deepcopy__(self, memo: Any) -> Any:
        wake(self)
        return self.__deepcopy__(memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        wake(self)
        return self.__reduce_ex__(protocol)


def fall_asleep(param: nn.Parameter, window: Window) -> None:
    """Let the window of a parameter stay on unseen."""
    param.__dict__[_WINDOW] = window
    param.__class__ = Asleep


def is_asleep(param: object) -> bool:
    """Whether nobody has looked at a parameter since it fell asleep."""
    return type(param) is Asleep


def wake_as_it_is(param: nn.Parameter) -> None:
    """Let a parameter be an ordinary one again, with its window."""
    param.__class__ = nn.Parameter
    del param.__dict__[_WINDOW]


def wake(value: object) -> None:
    """Make a parameter whole if it is asleep; anything else is left as it is."""
    if type(value) is Asleep:
        value.__dict__[_WINDOW].wake()


class Sleepers(Protocol):
    """Whoever lets parameters sleep."""

    def wake(self) -> None:
        """Wake all of them."""
        ...


_all: weakref.WeakSet[Sleepers] = weakref.WeakSet()


def remember(sleepers: Sleepers) -> None:
    """Have some more parameters woken by `wake_all`."""
    _all.add(sleepers)


def wake_all() -> None:
    """Wake all that is asleep, also from within a graph that torch.compile is just making."""
    for sleepers in list(_all):
        sleepers.wake()


# By this mark torch.compile calls a function while it makes a graph, and takes no note of what is in it.
wake_all._dynamo_marked_constant = True  # type: ignore[attr-defined]
