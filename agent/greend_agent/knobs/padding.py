"""Narrow layers in code that counts on their full width: zeros stand in for the units left out.

Much attention is written as `view(batch, length, heads, width // heads)`, with the width of the residual
stream: there fewer heads cannot be told by any attribute. What lies between the projections then runs at
full width, on zeros; the projections themselves, most of the work, are those of the narrow model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import pad

from greend_agent.knobs.around import Around


class Padded(Around):
    """A narrow layer's forward, its output filled up to `full` units in each segment."""

    def __init__(self, inner: Callable[..., Any], count: int, full: int, units: tuple[int, ...]) -> None:
        super().__init__(inner)
        self._sizes = [count * unit for unit in units]
        self._missing = [(full - count) * unit for unit in units]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer; its output is (..., full width)."""
        parts = self.inner(*args, **kwargs).split(self._sizes, -1)
        filled = [pad(part, (0, missing)) for part, missing in zip(parts, self._missing, strict=True)]
        return filled[0] if len(filled) == 1 else torch.cat(filled, -1)


class Selected(Around):
    """A narrow layer's forward, which reads the first entries of an input at full width."""

    def __init__(self, inner: Callable[..., Any], width: int) -> None:
        super().__init__(inner)
        self._width = width

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer on (..., full width)."""
        if args:
            return self.inner(args[0][..., : self._width], *args[1:], **kwargs)
        name, value = next(iter(kwargs.items()))
        return self.inner(**{**kwargs, name: value[..., : self._width]})
