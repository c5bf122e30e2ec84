"""A forward in the place of a module's own, which calls that one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Self


class Around:
    """Called as a module's forward while a dial is turned down; `inner` is the forward that it replaces.

    A copy or a pickle of the module, made meanwhile, has its own forward, made of the standard library alone.
    """

    def __init__(self, inner: Callable[..., Any]) -> None:
        self.inner = inner

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """What `inspect.signature` goes by: some training code passes on only what a forward has names for."""
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
