"""Notice that another optimizer steps parameters that are windowed: its state would have no full tensors."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook


class Others:
    """Tells, before its step, of any optimizer but one's own that has one of the parameters.

    It keeps nobody alive, and stays registered when its agent is gone: removing a hook from inside a garbage
    collection could change the dictionary that torch is walking.
    """

    def __init__(self, own: Optimizer, params: Iterable[torch.Tensor], tell: Callable[[], None]) -> None:
        self._own, self._tell = weakref.ref(own), weakref.WeakMethod(tell)
        self._params = {id(p) for p in params}
        self._apart: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._handle = register_optimizer_step_pre_hook(self._on_step)

    def remove(self) -> None:
        """Look no longer."""
        self._handle.remove()

    def _on_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling():
            return  # a compiled step of another model: nothing of ours belongs in its graph
        tell = self._tell()
        if tell is None or optimizer is self._own() or optimizer in self._apart:
            return
        if any(id(p) in self._params for group in optimizer.param_groups for p in group["params"]):
            tell()
        else:
            self._apart.add(optimizer)
