"""A Parameter becomes a window on its own storage, and full again, and never stops being itself.

`p.set_(master[index])` under `no_grad` rather than `p.data = master[index]`: the loss of the step before
often keeps its graph alive, and with it the node that accumulates into `p`; assigning `.data` leaves that
node with the old shape, and the next backward fails. `set_` drops it, keeps the parameter's hooks, and
raises its version, so that a backward through an old graph is an error and not a wrong gradient.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.optim import Optimizer

from greend_agent.moments import SECOND_MOMENTS, Arrears

Index = tuple[slice | torch.Tensor, ...]
"""For each dimension the entries seen: the first ones, a middle part, or at most once a vector of indices."""

UNTOUCHED = object()
"""The value of an attribute that a level leaves as it is."""


class Refused(Exception):
    """A tensor that must not be windowed; the message says which and why."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One parameter and what each level sees of it, least first; None: all of it.

    The index of a level lies within the index of the level above.
    """

    param: torch.Tensor
    indices: tuple[Index | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Attribute:
    """An attribute of a module (or of the model's own objects) and its value at each level, least first."""

    owner: Any
    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Ladder:
    """What each level does to a model, least first; the top does nothing."""

    levels: int
    windows: tuple[Window, ...]
    attributes: tuple[Attribute, ...] = ()
    idle: tuple[frozenset[nn.Parameter], ...] = ()
    """For each level the parameters that have no part in its steps: without a gradient when it steps."""


@dataclass(slots=True, eq=False)
class _Worn:
    """A window that is on, with all that is needed to take it off."""

    param: torch.Tensor
    index: Index
    master: torch.Tensor
    view: torch.Tensor
    state: dict[str, tuple[torch.Tensor, torch.Tensor]]
    """For each windowed tensor of the optimizer: the full one, and its window."""
    copied: bool = False
    """The windows are copies of their own, to be written back when they are taken off."""
    entries: int = 0
    """How many entries the optimizer's state had, to see whether any was born since."""

    def _pairs(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(self.master, self.view), *self.state.values()] if self.copied else []

    def write_back(self) -> None:
        """Put what was done to the copies into the full tensors."""
        for whole, window in self._pairs():
            whole[self.index].copy_(window)

    def read_again(self) -> None:
        """Put what was done to the full tensors into the copies."""
        for whole, window in self._pairs():
            window.copy_(whole[self.index])


class WindowSet:
    """All windows of a model, with the optimizer's state of the same parameters."""

    def __init__(self, ladder: Ladder, optimizer: Optimizer | None = None) -> None:
        self.top = ladder.levels - 1
        self.level = self.top
        """The level whose windows are on; the top means that none is."""
        self._windows = ladder.windows
        self._optimizer = optimizer
        self._worn: list[_Worn] = []
        self._last: dict[torch.Tensor, _Worn] = {}
        self._lifted = False
        self._arrears = Arrears(ladder.levels)
        # Fused optimizers (torch 2.13, CPU) run through memory without looking at strides: given a window
        # with gaps they update the wrong entries, also outside of it, without an error.
        groups = optimizer.param_groups if optimizer is not None else []
        self._fused = {p for group in groups if group.get("fused") for p in group["params"]}

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All that may be windowed."""
        return [window.param for window in self._windows]

    def apply(self, level: int) -> None:
        """Put the windows of a level on; the top takes them off. Raises Refused, then all is full again."""
        if level == self.level != self.top:
            return
        self.restore()
        self.settle(level)
        if level == self.top:
            self._last.clear()
            return
        self.level = level
        try:
            with torch.no_grad():
                for window in self._windows:
                    index = window.indices[level]
                    if index is not None:
                        self._put_on(window.param, index)
        except BaseException:
            self.restore()
            raise

    def settle(self, level: int) -> None:
        """Give the entries that a level sees what they missed while outside the windows."""
        if not self._worn and self._optimizer is not None and self._arrears.due(level):
            self._arrears.settle(self._optimizer, [(w.param, w.indices) for w in self._windows], level)

    def forget(self) -> None:
        """Note that the optimizer's state was replaced from outside."""
        self._last.clear()
        self._arrears.forget()

    def restore(self, *, keep_gradients: bool = False) -> None:
        """Make every parameter full again: same storage, same bits outside the window.

        Gradients are dropped, or kept with zeros outside the window for a step that is still to come.
        Raises Refused, when all is restored, if the optimizer made state that has no place in a full tensor.
        """
        if not self._worn:
            self.level = self.top
            return
        refusal = None
        worn, self._worn = self._worn, []
        with torch.no_grad():
            for one in worn:
                refusal = self._take_off(one, keep_gradients) or refusal
        self.level, self._lifted = self.top, False
        if refusal:
            raise Refused(refusal)

    def stepped(self) -> None:
        """Note that the optimizer has stepped at the level in force."""
        self._arrears.stepped(self.level)

    def full_tensor(self, param: object) -> torch.Tensor | None:
        """Return the whole tensor behind a parameter whose window is on."""
        one = next((w for w in self._worn if w.param is param), None)
        if one is None:
            return None
        if not self._lifted:
            with torch.no_grad():
                one.write_back()
        return one.master

    def full_state(self, param: object) -> dict[str, torch.Tensor]:
        """Return the optimizer's whole tensors for a parameter whose window is on."""
        return next(({k: v[0] for k, v in w.state.items()} for w in self._worn if w.param is param), {})

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Inside, every parameter is full; afterwards the windows and gradients of before are back.

        The versions of the parameters do not change, as the data that a pending graph saved is back in
        place when its backward runs.
        """
        if not self._worn or self._lifted:
            yield
            return
        self._lifted = True
        with contextlib.ExitStack() as versions:
            for one in self._worn:
                versions.enter_context(_unsafe_preserve_version_counter(one.param))
            before = [(one, one.param.data, one.param.grad) for one in self._worn]
            self._swap_state(full=True)
            with torch.no_grad():
                for one, _, _ in before:
                    one.write_back()
                    one.param.grad = None
                    one.param.set_(one.master)  # type: ignore[call-overload]
            try:
                yield
            finally:
                # A step or a load inside has taken the windows off for good: then nothing goes back.
                if self._lifted:
                    self._swap_state(full=False)
                    with torch.no_grad():
                        for one, view, grad in before:
                            one.read_again()
                            one.param.grad = None
                            one.param.set_(view)  # type: ignore[call-overload]
                            one.param.grad = grad
                    self._lifted = False

    def _swap_state(self, *, full: bool) -> None:
        for one in self._worn:
            state = self._state(one.param)
            for name, (whole, view) in one.state.items():
                if state.get(name) is (view if full else whole):
                    state[name] = whole if full else view

    def _state(self, param: torch.Tensor) -> dict[str, object]:
        # `get`, since `state` is a defaultdict and an empty entry would look like state to the optimizer.
        found = self._optimizer.state.get(param) if self._optimizer is not None else None
        return found if found is not None else {}

    def _put_on(self, param: torch.Tensor, index: Index) -> None:
        state = self._state(param)
        one = self._last.get(param)
        if one is None or one.index is not index or one.master.data_ptr() != param.data_ptr():
            # Making the views is two thirds of the cost of a change: those of the step before serve again.
            master = param.data
            copied = param in self._fused and not master[index].is_contiguous()
            one = self._last[param] = _Worn(param, index, master, _window(master, index, copied), {}, copied)
        elif one.copied:
            one.view.copy_(one.master[index])
        views = one.state
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.numel() > 1:
                if name not in views or views[name][0] is not value:
                    if value.shape != one.master.shape:
                        raise Refused(
                            f"optimizer state {name!r} has shape {tuple(value.shape)}, "
                            f"its parameter {tuple(one.master.shape)}"
                        )
                    views[name] = value, _window(value, index, one.copied)
                elif one.copied:
                    views[name][1].copy_(value[index])
                state[name] = views[name][1]
        one.entries = len(state)
        self._worn.append(one)
        param.grad = None
        param.set_(one.view)  # type: ignore[call-overload]

    def _take_off(self, one: _Worn, keep_gradients: bool) -> str | None:
        param, grad, refusal = one.param, one.param.grad, None
        state = self._state(param)
        copied = one.copied and not self._lifted  # lifted, the full tensors are the newer ones
        if copied:
            one.master[one.index].copy_(one.view)
        for name, (whole, view) in one.state.items():
            if state.get(name) is view:
                if copied:
                    whole[one.index].copy_(view)
                state[name] = whole
            else:
                one.entries = -1
        if len(state) != one.entries:
            refusal = _settle_newborn(state, one)
        param.grad = None
        param.set_(one.master)  # type: ignore[call-overload]
        if keep_gradients and grad is not None:
            # Already full if it was made inside `lifted`.
            param.grad = grad if grad.shape == param.shape else _padded(grad, one)
        return refusal


def _settle_newborn(state: dict[str, object], one: _Worn) -> str | None:
    """Make full what the optimizer made, or replaced, while windowed; or say what cannot be."""
    small = one.view.shape
    for name, value in list(state.items()):
        whole = one.state[name][0] if name in one.state else None
        if not isinstance(value, torch.Tensor) or value is whole or value.numel() <= 1:
            continue
        if value.shape != small:
            state.clear()
            return f"optimizer state {name!r} has shape {tuple(value.shape)}, the window {tuple(small)}"
        state[name] = _widened(name, value, one, whole)
    return None


def _window(whole: torch.Tensor, index: Index, copied: bool) -> torch.Tensor:
    return whole[index].contiguous() if copied else whole[index]


def _padded(value: torch.Tensor, one: _Worn) -> torch.Tensor:
    whole = torch.zeros_like(one.master, dtype=value.dtype)
    whole[one.index] = value
    return whole


def _widened(name: str, value: torch.Tensor, one: _Worn, whole: torch.Tensor | None) -> torch.Tensor:
    """Return state that the optimizer made, or replaced, while windowed, as a full tensor."""
    if whole is None:
        whole = torch.zeros_like(one.master, dtype=value.dtype)
        if name in SECOND_MOMENTS:
            # Zero would make the first updates of the entries outside as large as 1/eps allows.
            whole.add_(value.mean())
    whole[one.index] = value
    return whole
