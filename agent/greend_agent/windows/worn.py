"""One parameter seen through the window of one level, and the optimizer's state of it through the same.

A window is a view where it is dense in memory. One with gaps is a compact copy where it must be one, or
where it pays; the parameter's is written back after each step, the state's when somebody looks.
"""

from __future__ import annotations

import torch
from torch.optim import Optimizer

from greend_agent.windows.gradients import Unpadded, padded, unpadded
from greend_agent.windows.ladder import Index, parts
from greend_agent.windows.seen import Seen, is_dense
from greend_agent.windows.state_window import StateWindow


class Worn:
    """A window on a parameter that is put on and taken off again and again.

    `copied`: as a compact copy, where it has gaps. The state of a copy rests between steps: see `Resting`.
    """

    def __init__(
        self, param: torch.Tensor, index: Index, optimizer: Optimizer | None, *, copied: bool
    ) -> None:
        self.param, self.index = param, index
        self._blocks = parts(index)
        whole = param.data
        self._at = whole.data_ptr()
        self._dense = len(self._blocks) == 1 and is_dense(whole[self._blocks[0][0]])
        self.copied = (copied and not self._dense) or len(self._blocks) > 1
        self.gaps = not self._dense and not self.copied
        if self.copied:
            self.data = Seen.copy(whole, self._blocks, whole[index])
        else:
            self.data = Seen.view(whole, self._blocks)
        self.state = StateWindow(param, optimizer, self.data, self._blocks, copied=self.copied)
        self._on = False
        self._gradient: Seen | None = None  # one that was there before the window
        self._padded: tuple[torch.Tensor, torch.Tensor, int] | None = None  # what is shown while lifted

    @property
    def fits(self) -> bool:
        """Whether the parameter still lies where it lay; a script may have given it other memory."""
        return self.param.data_ptr() == self._at

    # --- on and off; parameters that are copies are read before and written after, all at once ---

    def put_on(self) -> None:
        """Let the parameter and its state be seen through the window. Raises Odd, as `StateWindow` does."""
        self.state.put_on()
        param, grad = self.param, self.param.grad
        self._gradient = None
        if grad is not None:
            param.grad = None
            grad = self._gradient_through(grad)
        self._on = True  # before it is true, so that an interrupt in between leaves it to be undone
        param.set_(self.data.seen)  # type: ignore[call-overload]
        if grad is not None:
            param.grad = grad

    def take_off(self, *, keep_gradient: bool) -> str | None:
        """Make the parameter and its state whole; done twice it does nothing. Returns what was refused.

        The gradient is padded when it is looked at, or kept whole for a step that is still to come.
        """
        refusal = self.state.take_off(rest=self.copied and not keep_gradient)
        if self._on:
            param, grad = self.param, self.param.grad
            if grad is not None:
                param.grad = None
            param.set_(self.data.whole)  # type: ignore[call-overload]
            self._on = False
            if grad is not None:
                param.grad = self._whole_gradient(grad, keep_gradient)
        return refusal

    # --- lifted: whole for a while in mid-step ---

    def lift(self) -> None:
        """Be whole for a while, parameter, state and gradient."""
        self.data.write()
        self.state.take_off(rest=False)
        grad = self.param.grad
        self.param.grad = self._padded = None
        self.param.set_(self.data.whole)  # type: ignore[call-overload]
        self._on = False
        if grad is not None:
            whole = padded(grad, self.data.whole, self._blocks)
            self.param.grad, self._padded = whole, (whole, grad, whole._version)

    def lower(self) -> None:
        """Be seen through the window again, with what was done meanwhile."""
        grad, before = self.param.grad, self._padded
        self.param.grad = self._padded = None
        self.data.read()
        self.state.put_on()
        self.param.set_(self.data.seen)  # type: ignore[call-overload]
        self._on = True
        if grad is not None:
            untouched = before is not None and grad is before[0] and grad._version == before[2]
            self.param.grad = before[1] if untouched and before else self._through(grad).seen.clone()

    @property
    def gradient_reaches_out(self) -> bool:
        """Whether, while lifted, a gradient has come to entries outside the window."""
        grad, before = self.param.grad, self._padded
        if grad is None or (before is not None and grad is before[0] and grad._version == before[2]):
            return False
        outside = grad.clone()
        for outer, _ in self._blocks:
            outside[outer] = 0
        return bool(outside.any())

    # --- the whole behind a window that is on ---

    def whole(self) -> torch.Tensor:
        """Return the full parameter with today's values."""
        self.data.write()
        return self.data.whole

    # --- gradients ---

    def _gradient_through(self, grad: torch.Tensor) -> torch.Tensor:
        """Return what the window sees of a gradient that was there before."""
        if isinstance(grad, Unpadded):
            small = grad.made_through(self._blocks)
            if small is not None:
                return small
            grad = grad.whole()
        self._gradient = self._through(grad)
        return self._gradient.seen

    def _through(self, grad: torch.Tensor) -> Seen:
        # Compact, as a fused optimizer goes through the gradient's memory too without looking at strides.
        if self._dense and is_dense(grad[self._blocks[0][0]]):
            return Seen.view(grad, self._blocks)
        seen = Seen.copy(grad, self._blocks, self.data.seen)
        seen.read()
        return seen

    def _whole_gradient(self, grad: torch.Tensor, keep: bool) -> torch.Tensor:
        before = self._gradient
        if before is not None and grad is before.seen:
            before.write()
            return before.whole
        if keep:
            return padded(grad, self.data.whole, self._blocks)
        return unpadded(grad, self.data.whole, self._blocks)
