"""The gradient of a step that was made through a window, seen in the shape of the whole parameter.

After a lowered step the parameter is whole again and its gradient would be of another shape. To pad them all
with zeros cost a quarter of a small step (MLP, batch 32), and most loops throw them away unread. So what lies
in `param.grad` until the next step's forward is a tensor that is padded when anybody looks at it, for 1 %.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map

from greend_agent.windows.ladder import Part


def padded(small: torch.Tensor, whole: torch.Tensor, blocks: list[Part]) -> torch.Tensor:
    """Return a gradient in the shape and layout of `whole`, zero outside the window."""
    full = torch.zeros_like(whole, dtype=small.dtype)
    for outer, inner in blocks:
        full[outer].copy_(small[inner])
    return full


class Unpadded(torch.Tensor):
    """A gradient that has the shape of the whole parameter, and gets its zeros when it is used."""

    _small: torch.Tensor | None
    _full: torch.Tensor | None
    _place: tuple[torch.Tensor, list[Part]]

    def whole(self) -> torch.Tensor:
        """Return the padded gradient, always the same one."""
        if self._full is None and self._small is not None:
            self._full = padded(self._small, *self._place)
        assert self._full is not None
        return self._full

    def show(self, small: torch.Tensor) -> None:
        """Be another gradient of the same kind."""
        self._small = small

    def let_go(self) -> bool:
        """Keep no gradient, and say whether it can be shown another: whether nobody has looked."""
        self._small = None
        return self._full is None

    def made_through(self, blocks: list[Part]) -> torch.Tensor | None:
        """Return the gradient as it was, if it was made through this very window and nobody has looked."""
        return self._small if self._full is None and self._place[1] is blocks else None

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Do what is asked with the padded gradient: calls from Python."""
        with torch._C.DisableTorchFunctionSubclass():
            return func(*tree_map(_whole, args), **tree_map(_whole, kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override] # torch declares it without its first two arguments
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Do what is asked with the padded gradient: a backward that adds to it."""
        return func(*tree_map(_whole, args), **tree_map(_whole, kwargs or {}))


# Private, but what every tensor subclass without memory of its own is made with, torch's own too.
_make: Callable[..., Any] | None = getattr(torch.Tensor, "_make_wrapper_subclass", None)


def unpadded(small: torch.Tensor, whole: torch.Tensor, blocks: list[Part]) -> torch.Tensor:
    """Return a gradient that gets its zeros when it is used; at once where this torch cannot make one."""
    if _make is None:
        return padded(small, whole, blocks)
    made: Unpadded = _make(
        Unpadded, whole.shape, strides=whole.stride(), dtype=small.dtype, device=small.device
    )
    made._small, made._full, made._place = small, None, (whole, blocks)
    return made


def _whole(value: Any) -> Any:
    return value.whole() if isinstance(value, Unpadded) else value
