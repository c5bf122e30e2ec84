"""Windows and the statistics of batch norm go on and off together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from greend_agent.norm.banks import Banks
from greend_agent.norm.domains import adaptive_layers
from greend_agent.windows.ladder import Ladder
from greend_agent.windows.window import WindowSet


def refusal(model: nn.Module) -> str | None:
    """Why a model's batch norms cannot have statistics for each level; None when they can."""
    if adaptive_layers(model):
        return "AdaptiveBatchNorm: its statistics are a domain's, and would have to be a level's as well"
    return None


def buffers_are_sent(outer: nn.Module) -> bool:
    """Whether another process sends its buffers to this one before each forward, as DDP's first does."""
    if not isinstance(outer, DistributedDataParallel):
        return False
    return outer.broadcast_buffers and torch.distributed.get_rank(outer.process_group) != 0


class BankedWindows(WindowSet):
    """The windows of a model, and with them the statistics that its batch norms have at each level."""

    def __init__(
        self,
        model: nn.Module,
        ladder: Ladder,
        optimizer: Optimizer | None = None,
        *,
        compact: bool = False,
        sent: bool = False,
    ) -> None:
        """Make the windows of a ladder; `compact` as for `WindowSet`, `sent` as for `Banks`."""
        self.banks = Banks(model, ladder, sent=sent)
        # Statistics are not windowed: those of a level are not a part of the top's.
        apart = {id(buffer) for buffer in self.banks.tensors}
        windows = tuple(window for window in ladder.windows if id(window.param) not in apart)
        self._ladder = replace(ladder, windows=windows)
        super().__init__(self._ladder, optimizer, compact=compact)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All that may be windowed, or show other statistics."""
        return [*super().tensors, *self.banks.tensors]

    def apply(self, level: int) -> None:
        """Put the windows and the statistics of a level on, for a training step."""
        if level == self.level != self.top:
            return
        super().apply(level)
        try:
            self.banks.begin(level)
        except BaseException:
            self.restore()
            raise

    def rest(self) -> None:
        """Be full, and the user's own, until the next step, as far as anybody can tell."""
        try:
            self.banks.hide()
        finally:
            super().rest()

    def restore(self, *, keep_gradients: bool = False) -> None:
        """Make every tensor full, and the user's own."""
        try:
            self.banks.hide()
        finally:
            super().restore(keep_gradients=keep_gradients)

    def stepped(self) -> None:
        """Note that the optimizer has stepped at the level in force."""
        super().stepped()
        self.banks.stepped(self.level)

    def full_tensor(self, param: object) -> torch.Tensor | None:
        """Return the user's own tensor behind one that is windowed, or shows other statistics."""
        own = self.banks.own(param)
        return own if own is not None else super().full_tensor(param)

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Inside, every tensor is full and the user's own; afterwards all is again as before."""
        with super().lifted(), self.banks.lifted():
            yield

    @contextlib.contextmanager
    def visiting(self, level: int) -> Iterator[None]:
        """Inside, between two steps, the model is what it is at a level, to be evaluated.

        The optimizer's state has no part in it; gradients are afterwards as they were.
        """
        self.restore()
        windows = WindowSet(self._ladder)
        gradients = [(window.param, window.param.grad) for window in self._ladder.windows]
        try:
            for param, _ in gradients:
                param.grad = None
            windows.apply(level)
            self.banks.show(level)
            yield
        finally:
            self.banks.hide()
            windows.restore()
            for param, gradient in gradients:
                param.grad = gradient
