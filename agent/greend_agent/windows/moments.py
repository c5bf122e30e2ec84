"""What the second moments of an optimizer have missed while their entries lay outside the windows.

Adam divides by the root of a moving average that starts at zero, and corrects for the start by the *step
count of the tensor*. Entries that open after a thousand steps at a lower level have had no, or few, updates
of their own, but are corrected as if they had had a thousand: their first updates are tens of times too
large. (A GPT opened half-way ended at 2.99 and 3.05 bits per byte, at 2.60 and 2.67 when this was put
right; always at the top it ends at 2.82.) So an entry that opens is given, for each update that it missed,
what the live entries had of it on average.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch.optim import Optimizer

from greend_agent.windows.ladder import Index, parts

SECOND_MOMENTS = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "acc_delta", "sum", "step_size")
"""By their names in torch.optim; Rprop's step size too, which is never to be zero."""


class Arrears:
    """Counts, for what each level adds to the one below, the steps that it was not part of."""

    def __init__(self, levels: int, idle: Sequence[Collection[torch.Tensor]] = ()) -> None:
        # For what each level adds: how many steps were made without it, at each of the levels below.
        self._missed = [[0] * level for level in range(levels)]
        self._idle = idle
        self._steps = 0

    def stepped(self, level: int) -> None:
        """Count one optimizer step at a level."""
        self._steps += 1
        for missed in self._missed[level + 1 :]:
            missed[level] += 1

    def due(self, level: int) -> bool:
        """Whether anything that the level sees has missed a step; never so in a run that was not lowered."""
        return any(self._missed[level])

    def forget(self) -> None:
        """Start anew: the optimizer's state was replaced from outside."""
        self._missed = [[0] * level for level in range(len(self._missed))]

    def settle(
        self,
        optimizer: Optimizer,
        tensors: Sequence[tuple[torch.Tensor, Sequence[Index | None]]],
        level: int,
    ) -> None:
        """Bring the entries that the level sees up to date. All tensors must be full."""
        # What a level adds has missed at least what the levels below have: the live part is a level.
        live = max(k for k, missed in enumerate(self._missed) if not any(missed))
        decays = {p: _decay(group) for group in optimizer.param_groups for p in group["params"]}
        with torch.no_grad():
            for param, indices in tensors:
                state = optimizer.state.get(param, {})
                steps = float(state.get("step", self._steps))
                for name in SECOND_MOMENTS:
                    moment = state.get(name)
                    if isinstance(moment, torch.Tensor) and moment.shape == param.shape:
                        mean = self.mean(moment, indices[live])
                        for ring in range(live + 1, level + 1):
                            missed = self._missed_by(param, ring)
                            share = missing_share(steps, missed, decays.get(param, 1.0))
                            _add_to_ring(moment, indices[ring - 1], indices[ring], mean * share)
        for ring in range(live + 1, level + 1):
            self._missed[ring] = [0] * ring

    def mean(self, moment: torch.Tensor, index: Index | None) -> torch.Tensor:
        """Return the mean of what an index sees of a moment."""
        return _seen(moment, index).mean()

    def _missed_by(self, param: torch.Tensor, ring: int) -> int:
        # A step in which the parameter had no part at all has not decayed anything, and is not counted.
        return sum(
            steps
            for level, steps in enumerate(self._missed[ring])
            if not self._idle or param not in self._idle[level]
        )


def missing_share(steps: float, missed: float, decay: float) -> float:
    """Return how much of a moment after `steps` updates is lacking in an entry that missed some of them.

    All of it for an entry that was never updated, none for one that missed nothing.
    """
    if steps <= 0 or missed <= 0:
        return 0.0
    own = max(0.0, steps - missed)
    if decay >= 1.0:  # a sum, as Adagrad's
        return (steps - own) / steps
    return float((decay**own - decay**steps) / (1.0 - decay**steps))


def _decay(group: dict[str, object]) -> float:
    betas = group.get("betas")
    if isinstance(betas, (tuple, list)) and len(betas) > 1:
        decay = betas[1]
    else:  # RMSprop has an alpha, Adadelta a rho
        decay = group.get("alpha", group.get("rho", 1.0))
    return float(decay) if isinstance(decay, (int, float, torch.Tensor)) else 1.0


def _seen(tensor: torch.Tensor, index: Index | None) -> torch.Tensor:
    return tensor if index is None else tensor[index]


def _add_to_ring(
    tensor: torch.Tensor,
    inner: Index | None,
    outer: Index | None,
    amount: torch.Tensor,
) -> None:
    if inner is outer:
        return
    kept = [(part, part.clone()) for part in _blocks(tensor, inner)]
    for part in _blocks(tensor, outer):
        part.add_(amount)
    for part, before in kept:
        part.copy_(before)


def _blocks(tensor: torch.Tensor, index: Index | None) -> list[torch.Tensor]:
    return [tensor] if index is None else [tensor[block] for block, _ in parts(index)]
