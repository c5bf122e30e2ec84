"""An agent from a training's first forward to its end, whatever trainer runs it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from torch import nn

from greend_agent.agent import Agent
from greend_agent.attach import attach, unwrapped
from greend_agent.discover import Watch

_log = logging.getLogger("greend")


class Following:
    """Attaches what an optimizer is seen to train: what a trainer hands on is often not what it calls."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._watch: Watch | None = None
        self.agent: Agent | None = None
        """The agent, from the first training forward on."""

    def start(self, optimizers: Sequence[Any], *, already: int = 0, steps: int | None = None) -> None:
        """Begin to look; of several optimizers, the one with the most parameters is followed, and named."""
        self.stop()
        optimizer = max(map(unwrapped, optimizers), key=_size)
        if len(optimizers) > 1:
            which = f"{type(optimizer).__name__} number {[unwrapped(o) for o in optimizers].index(optimizer)}"
            _log.warning("greend: of %d optimizers follows %s, the largest", len(optimizers), which)
        options = {"steps": steps, **self._options}

        def follow(module: nn.Module, made: int) -> None:
            self.agent = attach(module, optimizer, already=made, **options)

        self._watch = Watch(optimizer, follow, already=already)
        self._watch.start()

    def stop(self) -> None:
        """Give the model back."""
        if self._watch is not None:
            self._watch.stop()
        if self.agent is not None:
            self.agent.detach()
        self._watch = self.agent = None


def _size(optimizer: Any) -> int:
    return sum(p.numel() for group in optimizer.param_groups for p in group["params"])
