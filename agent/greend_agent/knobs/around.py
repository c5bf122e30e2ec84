"""A forward in the place of a module's own, which calls that one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any, Self

from torch import nn

from greend_agent.windows.ladder import UNTOUCHED, Attribute, Ladder


class Around:
    """Called as a module's forward while a dial is turned down; `inner` is the forward that it replaces.

    A copy or a pickle of the module, made meanwhile, has its own forward, made of the standard library alone.
    """

    def __init__(self, inner: Callable[..., Any]) -> None:
        self.inner = inner

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """What `inspect.signature` goes by: some code passes on only what a forward has names for."""
        return self.inner

    def over(self, inner: Callable[..., Any]) -> Self:
        """Return the same around another forward, for a module that has two dials."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other.inner = inner
        return other

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module."""
        return self.inner(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial, (self.inner,)


def both(before: Any, value: Any) -> Any:
    """Return the value of an attribute that two dials set: of two forwards, one goes around the other."""
    if before is UNTOUCHED:
        return value
    if isinstance(value, Around):
        return value.over(before)
    return before.over(value) if isinstance(before, Around) else value


class Front(Around):
    """The forward of what the training loop calls: there for good, and nothing but a call more at the top.

    torch looks a module's `forward` up before it calls the hooks on it. A level that is chosen in such a
    hook would come too late for that module itself; so what it changes is the `inner` of this.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module.forward)
        self._module, self._before = module, vars(module).get("forward")
        object.__setattr__(module, "forward", self)

    def remove(self) -> None:
        """Put back what was there; if something else is there by now, that stays."""
        if vars(self._module).get("forward") is self:
            if self._before is None:
                object.__delattr__(self._module, "forward")
            else:
                object.__setattr__(self._module, "forward", self._before)


def fronted(ladder: Ladder, called: Collection[nn.Module]) -> tuple[Ladder, list[Front]]:
    """Return a ladder that also holds for what the training loop calls itself, and what to remove later."""
    fronts: list[Front] = []
    attributes: list[Attribute] = []
    for one in ladder.attributes:
        if one.name == "forward" and any(one.owner is module for module in called):
            fronts.append(Front(one.owner))
            one = Attribute(fronts[-1], "inner", one.values)
        attributes.append(one)
    return dataclasses.replace(ladder, attributes=tuple(attributes)), fronts
