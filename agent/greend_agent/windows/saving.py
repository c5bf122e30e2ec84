"""What is saved and loaded in mid-step is whole: the model as it would be without greend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from greend_agent.hook import Hook
from greend_agent.windows.window import WindowSet


class Saving:
    """Hooks by which `state_dict` shows full tensors, and loading finds them."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        windows: WindowSet,
        guarded: Callable[..., None],
    ) -> None:
        self._windows, self._guarded = windows, guarded
        windowed = {id(tensor) for tensor in windows.tensors}
        self._handles: list[Any] = []
        for module in model.modules():
            tensors = {**module._parameters, **module._buffers}
            own = {n: t for n, t in tensors.items() if t is not None and id(t) in windowed}
            if own:
                shown: Any = module  # torch has no types for these two
                self._handles += [
                    shown.register_state_dict_post_hook(Hook(self._shows_full(own))),
                    shown.register_load_state_dict_pre_hook(Hook(self._on_load)),
                ]
        self._handles += [
            optimizer.register_state_dict_pre_hook(self._on_optimizer_state_dict),
            optimizer.register_state_dict_post_hook(self._show_full_state),
            optimizer.register_load_state_dict_pre_hook(self._on_load),
            optimizer.register_load_state_dict_post_hook(self._on_optimizer_loaded),
        ]

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _shows_full(self, own: dict[str, torch.Tensor]) -> Callable[..., None]:
        def show(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
            for name, tensor in own.items():
                whole = self._windows.full_tensor(tensor)
                if whole is not None and prefix + name in state:
                    state[prefix + name] = whole

        return show

    def _on_optimizer_state_dict(self, optimizer: Optimizer) -> None:
        self._guarded(self._windows.end_rest)
        self._guarded(self._windows.settle, self._windows.top)

    def _show_full_state(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        if self._windows.level == self._windows.top:
            return
        numbers: dict[int, Any] = {}
        for group, packed in zip(optimizer.param_groups, state["param_groups"], strict=True):
            for param, number in zip(group["params"], packed["params"], strict=True):
                whole = self._windows.full_state(param)
                if whole and number in state["state"]:
                    # A new dictionary: the one in `state` is the optimizer's own.
                    numbers[number] = {**state["state"][number], **whole}
        state["state"].update(numbers)

    def _on_load(self, *_: Any) -> None:
        self._guarded(self._windows.restore, keep_gradients=True)

    def _on_optimizer_loaded(self, optimizer: Optimizer) -> None:
        self._windows.forget()
