"""A Parameter becomes a window on its own storage, and full again, and never stops being itself.

`p.set_(master[index])` under `no_grad` rather than `p.data = master[index]`: the loss of the step before
often keeps its graph alive, and with it the node that accumulates into `p`; assigning `.data` leaves that
node with the old shape, and the next backward fails. `set_` drops it, keeps the parameter's hooks, and
raises its version, so that a backward through an old graph is an error and not a wrong gradient.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.optim import Optimizer

from greend_agent.windows import asleep
from greend_agent.windows.ladder import Index, Ladder
from greend_agent.windows.moments import Arrears
from greend_agent.windows.seen import copy_all, know_uses
from greend_agent.windows.settings import Settings
from greend_agent.windows.state_window import Odd
from greend_agent.windows.worn import Worn

_AT_ONCE_BYTES = 64 * 1024
_NARROW = 16


class Refused(Exception):
    """A tensor that must not be windowed; the message says which and why."""


class WindowSet:
    """All windows of a model, with the optimizer's state of the same parameters.

    The first step at a level sees large windows with gaps as views, so that a change of level moves no
    memory; from the second on they are compact copies, which cost less than the strides did. `compact`:
    copies always, for who must not see two layouts of one level.
    """

    def __init__(self, ladder: Ladder, optimizer: Optimizer | None = None, *, compact: bool = False) -> None:
        self.top = ladder.levels - 1
        self.level = self.top
        """The level whose windows are on; the top means that none is."""
        self._windows = ladder.windows
        self._idle = ladder.idle or (frozenset(),) * ladder.levels
        self._optimizer, self._compact = optimizer, compact
        self._settings = Settings(ladder.attributes)
        self._arrears = Arrears(ladder.levels, self._idle)
        self._worn: list[Worn] = []  # what is on
        self._views: dict[int, list[Worn]] = {}
        self._held, self._last = self.top, list[Worn]()  # the level of the last step, and its windows
        self._steady = False  # whether these windows serve for as long as the level is held
        self._apart: tuple[list[torch.Tensor], list[torch.Tensor]] = [], []  # copies, and their originals
        self._versions: contextlib.ExitStack | None = None  # while lifted
        self._sleeping = False  # whether windows are on, unseen
        asleep.remember(self)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All that may be windowed."""
        return [window.param for window in self._windows]

    # --- the way of one step ---

    def apply(self, level: int) -> None:
        """Put the windows of a level on; the top takes them off. Raises Refused, then all is full again."""
        if level == self.level != self.top:
            return
        if not (self._sleeping and self._steady and level == self._held):
            self.restore()
        if level != self._held:
            self._leave()
        self.settle(level)
        if level == self.top:
            return
        try:
            with torch.no_grad():
                self._fit(level)
                self._read()
                self.level = level
                for one in self._last:
                    self._worn.append(one)
                    one.put_on()
                self._sleeping = False
                self._settings.put(level)
        except Odd as error:
            self._worn.pop()
            self.restore(keep_gradients=True)
            raise Refused(str(error)) from error
        except BaseException:
            self.restore(keep_gradients=True)
            raise

    def before_step(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """Make ready for the optimizer's step: a step pre-hook's arguments, and what it returns.

        Parameters without a part in the step lose their gradient: one of zeros, as
        `zero_grad(set_to_none=False)` leaves it, would let momentum and decay move them.
        """
        if self.level != self.top:
            self._ready()
        else:
            self.wake()
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None or not any(self._idle):
            return None

        def closed() -> Any:
            loss = closure()  # which may have chosen the level
            self._ready()
            return loss

        if len(args) > 1:
            return (args[0], closed, *args[2:]), kwargs
        return args, {**kwargs, "closure": closed}

    def _ready(self) -> None:
        if self._versions is not None:
            if any(one.gradient_reaches_out for one in self._worn):
                self.restore(keep_gradients=True)  # a step of the whole model
            else:
                self._lower()
        for param in self._idle[self.level]:
            param.grad = None

    def stepped(self) -> None:
        """Note that the optimizer has stepped at the level in force."""
        self._arrears.stepped(self.level)

    def rest(self) -> None:
        """Be full until the next step, as far as anybody can tell.

        What is told when somebody looks keeps its window on, and is full as soon as they do; the rest is made
        full at once. Raises Refused, as `restore` does.
        """
        if self.level == self.top:
            return
        if self._versions is not None:
            self.restore()
            return
        refusal = None
        with torch.no_grad():
            for one in self._worn:
                if one.may_sleep:
                    refusal = one.sleep() or refusal
                else:
                    one.data.write()
                    refusal = one.take_off(keep_gradient=False) or refusal
        self._settings.take_off()
        self._worn, self.level, self._sleeping = [], self.top, True
        if refusal:
            raise Refused(refusal)

    def restore(self, *, keep_gradients: bool = False) -> None:
        """Make every parameter full again: same storage, same bits outside the window.

        Gradients get zeros outside the window: when they are looked at, or at once for a step that is
        still to come. Raises Refused, when all is restored, if the optimizer made state that has no place
        in a full tensor.
        """
        self.wake()
        if self.level == self.top:
            return
        refusal = None
        with torch.no_grad():
            if self._versions is None:
                copy_all(self._apart[1], self._apart[0])
            for one in self._worn:
                refusal = one.take_off(keep_gradient=keep_gradients) or refusal
        self._settings.take_off()
        if self._versions is not None:
            self._versions.pop_all()  # a step or a load has made the parameters other ones
            self._versions = None
        # Last, so that an interrupt on the way leaves it to be done again.
        self._worn, self.level = [], self.top
        if refusal:
            raise Refused(refusal)

    # --- what is seen from outside ---

    def settle(self, level: int) -> None:
        """Give the entries that a level sees what they missed while outside the windows."""
        if self.level == self.top and self._optimizer is not None and self._arrears.due(level):
            self.end_rest()
            self._arrears.settle(self._optimizer, [(w.param, w.indices) for w in self._windows], level)

    def wake(self) -> None:
        """Make every parameter full whose window is on unseen."""
        if self._sleeping:
            for one in self._last:
                asleep.wake(one.param)
            self._sleeping = False

    def end_rest(self) -> None:
        """Make all full that rests, and give the optimizer back its own dictionaries of state."""
        self.wake()
        for one in self._last:
            one.state.end_rest()

    def forget(self) -> None:
        """Note that the optimizer's state was replaced from outside."""
        self._leave()
        self._arrears.forget()

    def full_tensor(self, param: object) -> torch.Tensor | None:
        """Return the whole tensor behind a parameter whose window is on."""
        one = next((w for w in self._worn if w.param is param), None)
        if one is None:
            return None
        with torch.no_grad():
            return one.data.whole if self._versions is not None else one.whole()

    def full_state(self, param: object) -> dict[str, torch.Tensor]:
        """Return the optimizer's whole tensors for a parameter whose window is on."""
        one = next((w for w in self._worn if w.param is param), None)
        if one is None or self._versions is not None:
            return {}
        with torch.no_grad():
            return one.state.whole()

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Inside, every parameter is full; afterwards the windows are back, with what was done meanwhile.

        Gradients inside have zeros outside the windows. The versions of the parameters do not change, as
        the data that a pending graph saved is back in place when its backward runs.
        """
        if self.level == self.top or self._versions is not None:
            self.wake()
            yield
            return
        self._lift()
        try:
            yield
        finally:
            # A step or a load inside has taken the windows off for good: then nothing goes back.
            if self._versions is not None:
                self._lower()

    def _lift(self) -> None:
        self._versions = contextlib.ExitStack()
        for one in self._worn:
            self._versions.enter_context(_unsafe_preserve_version_counter(one.param))
        with torch.no_grad():
            for one in self._worn:
                one.lift()
        self._settings.take_off()

    def _lower(self) -> None:
        with torch.no_grad():
            for one in self._worn:
                one.lower()
        self._settings.put(self.level)
        if self._versions is not None:
            self._versions.close()
            self._versions = None

    # --- views and copies ---

    def _read(self) -> None:
        """Bring the copies up to date of all parameters but those that nobody has seen since."""
        if not self._sleeping:
            copy_all(*self._apart)
            return
        for one in self._last:
            if one.copied and not asleep.is_asleep(one.param):
                one.data.read()

    def _fit(self, level: int) -> None:
        """Have the windows of a level for the parameters as they lie now."""
        held = level == self._held
        if held and self._steady and all(one.fits for one in self._last):
            return
        self.wake()
        views = self._views.get(level)
        if views is None or not all(one.fits for one in views):
            self.end_rest()
            views = self._views[level] = list(self._made(level))
        self._steady = held or not any(one.gaps for one in views)
        if held:
            self._last = [
                Worn(one.param, one.index, self._optimizer, copied=True) if one.gaps else one for one in views
            ]
        else:
            self._last = views
        self._held = level
        copies = [one.data for one in self._last if one.copied]
        self._apart = [t for c in copies for t in c.inner], [t for c in copies for t in c.outer]
        there = {one: one.data for worn in (*self._views.values(), self._last) for one in worn}
        know_uses(list(there.values()))

    def _made(self, level: int) -> Iterator[Worn]:
        # Fused optimizers (torch 2.13, CPU) run through memory without looking at strides: given a window
        # with gaps they update the wrong entries, also outside of it, without an error. And on a GPU the
        # foreach kernels take dense tensors only.
        groups = self._optimizer.param_groups if self._optimizer is not None else []
        fused = {p for group in groups if group.get("fused") for p in group["params"]}
        for window in self._windows:
            index = window.indices[level]
            if index is not None:
                param = window.param
                copied = self._compact or param in fused or param.device.type != "cpu"
                yield Worn(param, index, self._optimizer, copied=copied or _costs_nothing(param, index))

    def _leave(self) -> None:
        """Let go of the level that was held."""
        self.end_rest()
        if any(one.copied for one in self._views.get(self._held, ())):
            del self._views[self._held]  # views are kept, as only their making costs; copies cost memory
        self._held, self._last, self._steady = self.top, [], False


def _costs_nothing(param: torch.Tensor, index: Index) -> bool:
    """Whether a copy is made at once: three of 64 KiB take 20 µs.

    And of a narrow one, as the gradient of a matrix with a side of 8 was summed in another order where it had
    gaps: equal up to rounding to that of a small model, and not bit for bit as all others were.
    """
    seen = param.data[index]
    return seen.numel() * seen.element_size() <= _AT_ONCE_BYTES or min(seen.shape[:2]) <= _NARROW
