"""Find the model that an optimizer trains by watching what is called: without a line of the user's code."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim import Optimizer

from greend import wire
from greend.choice import parse_knobs, parse_levels
from greend_agent.attach import attach
from greend_agent.engines.compiled import compiled_root

_log = logging.getLogger("greend")

_PATIENCE = 20_000
"""Module calls looked at before giving up: 2.7 µs each, so that a job never pays more than 50 ms."""

_LEVELS: int | tuple[float, ...] = 4

Choice = TypeVar("Choice")


def watch(optimizer: Optimizer) -> None:
    """Attach what an optimizer, which has just made its first step, is seen to train.

    The environment says with which levels and knobs.
    """

    def follow(module: nn.Module, steps: int) -> None:
        levels = _chosen(wire.ENV_LEVELS, parse_levels, _LEVELS)
        knobs = _chosen(wire.ENV_KNOBS, parse_knobs, None)
        attach(module, optimizer, levels=levels, knobs=knobs, already=steps)

    Watch(optimizer, follow, already=1).start()


class Watch:
    """Waits for the first module that is called in training and owns parameters of an optimizer.

    `follow` is called once, with that module and the number of steps that were made by then.
    """

    def __init__(
        self, optimizer: Optimizer, follow: Callable[[nn.Module, int], object], *, already: int = 0
    ) -> None:
        self._optimizer, self._follow = optimizer, follow
        self._trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._seen: set[int] = set()
        self._calls, self._steps = 0, already
        self._handles: list[Any] = []

    def start(self) -> None:
        """Begin to watch."""
        self._guarded(self._look)

    def stop(self) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()

    def _look(self) -> None:
        # A global hook would be compiled into a module that was compiled in place, and never be called.
        compiled = compiled_root(self._trained)
        if compiled is not None:
            self._follow(compiled, self._steps)
            return
        self._handles = [
            register_module_forward_pre_hook(self._on_call),
            self._optimizer.register_step_post_hook(self._on_step),
        ]

    def _on_step(self, *_: Any) -> None:
        if not torch.compiler.is_compiling():
            self._steps += 1

    def _on_call(self, module: nn.Module, args: Any) -> None:
        # The outermost comes first: whatever contains the model is called before the model.
        if torch.compiler.is_compiling() or not module.training or not torch.is_grad_enabled():
            return
        self._calls += 1
        if self._calls > _PATIENCE:
            self.stop()
        elif id(module) not in self._seen:
            self._seen.add(id(module))
            self._guarded(self._consider, module)

    def _consider(self, module: nn.Module) -> None:
        if any(id(p) in self._trained for p in module.parameters()):
            self.stop()
            self._follow(module, self._steps)

    def _guarded(self, action: Callable[..., None], *args: Any) -> None:
        try:
            action(*args)
        except Exception as error:
            self.stop()
            _log.warning("greend: not attached: %s", error)


def _chosen(variable: str, parse: Callable[[str], Choice], default: Choice) -> Choice:
    text = os.environ.get(variable, "")
    try:
        return parse(text) if text else default
    except ValueError as error:
        _log.warning("greend: %s: %s; the default is taken", variable, error)
        return default
