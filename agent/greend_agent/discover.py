"""Attach without a line of the user's code: from the first optimizer step to the model that it trains."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim import Optimizer

from greend import wire
from greend_agent.attach import attach

_log = logging.getLogger("greend")

_PATIENCE = 20_000
"""Module calls looked at before giving up: 2.7 µs each, so that a job never pays more than 50 ms."""


def watch(optimizer: Optimizer) -> None:
    """Attach the first module that is called in training and owns parameters of an optimizer."""
    _Watch(optimizer).start()


class _Watch:
    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._seen: set[int] = set()
        self._calls = 0
        self._steps = 1  # the one that made us look
        self._handles: list[Any] = []

    def start(self) -> None:
        self._handles = [
            register_module_forward_pre_hook(self._on_call),
            self._optimizer.register_step_post_hook(self._on_step),
        ]

    def _stop(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _on_step(self, *_: Any) -> None:
        self._steps += 1

    def _on_call(self, module: nn.Module, args: Any) -> None:
        # The outermost comes first: whatever contains the model is called before the model.
        if torch.compiler.is_compiling() or not module.training or not torch.is_grad_enabled():
            return
        try:
            self._calls += 1
            if self._calls > _PATIENCE:
                self._stop()
            elif id(module) not in self._seen:
                self._seen.add(id(module))
                if any(id(p) in self._trained for p in module.parameters()):
                    self._stop()
                    attach(module, self._optimizer, levels=_levels(), already=self._steps)
        except Exception as error:
            self._stop()
            _log.warning("greend: not attached: %s", error)


def _levels() -> int:
    value = os.environ.get(wire.ENV_LEVELS, "")
    return int(value) if value.isdecimal() and int(value) > 0 else 4
