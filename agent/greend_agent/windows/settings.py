"""Attributes of the user's objects that have another value at a level, and the very same one afterwards."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from greend_agent.windows.ladder import UNTOUCHED, Attribute

_ABSENT = object()


class Settings:
    """The attributes of all levels, and what the ones in force have replaced."""

    def __init__(self, attributes: Sequence[Attribute]) -> None:
        self._attributes = attributes
        self._replaced: list[tuple[Any, str, Any, Any]] = []  # owner, name, our value, the user's

    def put(self, level: int) -> None:
        """Set the values of a level; those of the level before have been taken off."""
        for attribute in self._attributes:
            value = attribute.values[level]
            if value is not UNTOUCHED:
                owner, name = attribute.owner, attribute.name
                self._replaced.append((owner, name, value, _own(owner, name)))
                # Not setattr: a module would file a module or parameter, or run code of the user's.
                object.__setattr__(owner, name, value)

    def take_off(self) -> None:
        """Put back what was there; an attribute that the instance did not have is gone again."""
        while self._replaced:
            owner, name, ours, users = self._replaced.pop()
            if _own(owner, name) is not ours:
                continue  # the user's code has set it meanwhile, and means it
            if users is _ABSENT:
                object.__delattr__(owner, name)
            else:
                object.__setattr__(owner, name, users)


def _own(owner: Any, name: str) -> Any:
    """Return the instance's own value; the marker where the class provides it."""
    if inspect.isdatadescriptor(inspect.getattr_static(type(owner), name, None)):
        return getattr(owner, name)  # a property, or a slot
    return getattr(owner, "__dict__", {}).get(name, _ABSENT)
