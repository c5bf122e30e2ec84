"""One parameter seen through the window of one level, and the optimizer's state of it through the same.

A window is a view where it is dense in memory. One with gaps is a compact copy where it must be one, or
where it pays; it is written back when somebody looks, the parameter's after each step where it cannot be
told who looks.
"""

from __future__ import annotations

import contextlib
import sys

import torch
from torch import nn
from torch.optim import Optimizer

from greend_agent.windows.asleep import fall_asleep, is_asleep, wake_as_it_is
from greend_agent.windows.gradients import Unpadded, padded, unpadded
from greend_agent.windows.ladder import Index, parts
from greend_agent.windows.seen import Seen, is_dense
from greend_agent.windows.state_window import StateWindow

_NOTHING = contextlib.nullcontext()
_MINE = 2
"""References to an object that nobody else has: a variable, and the argument of who counts."""


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
        self._small: torch.Tensor | None = None  # the gradient while asleep
        self._shown: torch.Tensor | None = None  # what was shown of it
        self._spare: Unpadded | None = None  # one that was shown, and that nobody has kept

    @property
    def fits(self) -> bool:
        """Whether the parameter still lies where it lay; a script may have given it other memory."""
        return is_asleep(self.param) or self.param.data_ptr() == self._at

    # --- on and off; parameters that are copies are read before and written after, all at once ---

    def put_on(self) -> None:
        """Let the parameter and its state be seen through the window. Raises Odd, as `StateWindow` does."""
        self.state.put_on()
        if is_asleep(self.param):
            self._get_up()
            return
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

    # --- asleep between two steps: on, but whole as soon as anybody looks ---

    @property
    def may_sleep(self) -> bool:
        """Whether everybody who looks can be told from here."""
        if type(self.param) is not nn.Parameter or self._gradient is not None:
            return False
        return not self.copied or self.data.only_here

    def sleep(self) -> str | None:
        """Stay on unseen, with state that rests. Returns what was refused, as `take_off` does."""
        refusal = self.state.take_off(rest=True)
        param = self.param
        self._small, param.grad = param.grad, None
        fall_asleep(param, self)  # type: ignore[arg-type] # `may_sleep` has seen that it is one
        return refusal

    def wake(self) -> None:
        """Make the parameter whole; its state wakes when it is looked at itself."""
        grad, self._small, self._shown = self.shown_gradient(), None, None
        wake_as_it_is(self.param)  # type: ignore[arg-type]
        with torch.inference_mode(False), torch.no_grad():
            self.data.write()
            self.param.set_(self.data.whole)  # type: ignore[call-overload]
            self._on = False
            self.param.grad = grad

    def shown_gradient(self) -> torch.Tensor | None:
        """Return the gradient in the shape of the whole parameter, while asleep; always the same one."""
        if self._small is None or self._shown is not None:
            return self._shown
        if self._spare is not None:
            self._shown, self._spare = self._spare, None
            self._shown.show(self._small)
            return self._shown
        # Also where somebody looks in inference mode: nothing could be added later to what is made there.
        with torch.inference_mode(False) if torch.is_inference_mode_enabled() else _NOTHING:
            self._shown = unpadded(self._small, self.data.whole, self._blocks)
        return self._shown

    def drop_gradient(self) -> None:
        """Forget the gradient, while asleep."""
        shown, self._small, self._shown = self._shown, None, None
        if isinstance(shown, Unpadded) and sys.getrefcount(shown) == _MINE and shown.let_go():
            self._spare = shown

    def _get_up(self) -> None:
        grad, shown, self._small, self._shown = self._small, self._shown, None, None
        wake_as_it_is(self.param)  # type: ignore[arg-type]
        if grad is not None:
            looked_at = isinstance(shown, Unpadded) and shown.made_through(self._blocks) is None
            self.param.grad = self._gradient_through(shown) if looked_at and shown is not None else grad

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
