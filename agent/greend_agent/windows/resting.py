"""An optimizer's state of one parameter between two steps, while its tensors are compact copies.

A held level would be as slow as a level that changes in each step if all moments were copied back and
forth at each step, though almost nobody ever looks at them. So between steps `optimizer.state[param]` is a
dictionary that brings the full tensors up to date when it is asked for anything, and is an ordinary one
from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Resting(dict[str, Any]):
    """A dictionary that fills itself when it is first looked at, by `wake`, which returns what is in it."""

    __slots__ = ("_wake",)

    def __init__(self, wake: Callable[[], dict[str, Any]]) -> None:
        self._wake: Callable[[], dict[str, Any]] | None = wake

    @property
    def asleep(self) -> bool:
        """Whether nobody has looked yet."""
        return self._wake is not None

    def wake(self) -> None:
        """Be an ordinary dictionary from now on."""
        wake, self._wake = self._wake, None
        if wake is not None:
            dict.update(self, wake())

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # A copy or a pickle is an ordinary dictionary, and loads where greend is not installed.
        return dict, (dict(self),)


def _looking(name: str) -> Callable[..., Any]:
    plain = getattr(dict, name)

    def method(self: Resting, *args: Any, **kwargs: Any) -> Any:
        self.wake()
        return plain(self, *args, **kwargs)

    return method


# All that a dictionary can be asked. `dict(d)` and `{**d}` take a shortcut past these methods, but not
# where `__iter__` is one's own.
for _name in (
    *("__getitem__", "__setitem__", "__delitem__", "__contains__", "__iter__", "__len__", "__reversed__"),
    *("__eq__", "__ne__", "__or__", "__ror__", "__ior__", "__repr__"),
    *("get", "keys", "values", "items", "copy", "pop", "popitem", "setdefault", "update", "clear"),
):
    setattr(Resting, _name, _looking(_name))
