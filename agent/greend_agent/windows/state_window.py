"""An optimizer's state of one parameter, seen through the window of the parameter."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from greend_agent.windows.ladder import Part
from greend_agent.windows.moments import SECOND_MOMENTS
from greend_agent.windows.resting import Resting
from greend_agent.windows.seen import Seen

State = dict[str, Any]


class Odd(Exception):
    """State of an optimizer that has no place in a window; the message says which."""


class StateWindow:
    """Puts the windows of a parameter's state on and off; where the parameter is copied, so is its state."""

    def __init__(
        self,
        param: torch.Tensor,
        optimizer: Optimizer | None,
        data: Seen,
        blocks: list[Part],
        *,
        copied: bool,
    ) -> None:
        self._param, self._optimizer = param, optimizer
        self._data, self._blocks, self._copied = data, blocks, copied
        self._state: State = {}  # the optimizer's own dictionary
        self._entries = -1
        self._know({})
        self._resting: Resting | None = None

    def put_on(self) -> None:
        """Let the optimizer see its state through the window. Raises Odd for what has no place in one."""
        state = self._current()
        if state is None:
            self._state, self._entries = {}, 0
            self._know({})
            return
        if self._resting is not None and state is self._resting and self._optimizer is not None:
            if state.asleep:
                self._optimizer.state[self._param] = self._state
                return
            self.end_rest()
            state = self._state
        if state is not self._state or not self._consists_of(state, whole=True):
            self._look_at(state)
        for name, moment in self._moments.items():
            if self._copied:
                moment.read()
            state[name] = moment.seen

    def take_off(self, *, rest: bool) -> str | None:
        """Make the state whole, or let it rest; done twice it does nothing. Returns what was refused."""
        state = self._current()
        if state is None or state is self._resting:
            return None
        if state is not self._state or not self._consists_of(state, whole=False):
            return self._widen(state)
        if rest and self._moments and self._optimizer is not None:
            if self._resting is None or not self._resting.asleep:
                self._resting = Resting(self._contents)
            self._optimizer.state[self._param] = self._resting
        else:
            for name, moment in self._moments.items():
                if self._copied:
                    moment.write()
                state[name] = moment.whole
        return None

    def end_rest(self) -> None:
        """Give the optimizer back its own dictionary, with the full tensors."""
        resting, self._resting = self._resting, None
        if resting is None or self._optimizer is None:
            return
        if self._current() is resting:
            found = dict(resting)  # which wakes it
            self._state.clear()
            self._state.update(found)
            self._optimizer.state[self._param] = self._state
        else:
            self.whole()  # something else was loaded; whoever still holds the tensors sees them whole

    def whole(self) -> State:
        """Return the optimizer's full tensors with today's values."""
        with torch.no_grad():
            for moment in self._moments.values():
                moment.write()
        return {name: moment.whole for name, moment in self._moments.items()}

    def _contents(self) -> State:
        # Also asked in mid-step, by who has kept the dictionary: the optimizer's own stays as it is.
        return {**self._state, **self.whole()}

    def _current(self) -> State | None:
        # `get`, since `state` is a defaultdict and an empty entry would look like state to the optimizer.
        return self._optimizer.state.get(self._param) if self._optimizer is not None else None

    def _consists_of(self, state: State, *, whole: bool) -> bool:
        """Whether the state has the known tensors and nothing new, whole or as the window shows them."""
        for name, tensor in self._wholes if whole else self._seens:
            if state.get(name) is not tensor:
                return False
        return len(state) == self._entries

    def _look_at(self, state: State) -> None:
        """Learn what the state consists of. Raises Odd for a tensor that has no place in a window."""
        moments: dict[str, Seen] = {}
        whole = self._data.whole
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.numel() > 1:
                if value.shape != whole.shape:
                    raise Odd(_odd(name, value, "its parameter", whole))
                if self._copied:
                    moments[name] = Seen.copy(value, self._blocks, self._data.seen)
                else:
                    moments[name] = Seen.view(value, self._blocks)
        self._state, self._entries = state, len(state)
        self._know(moments)

    def _know(self, moments: dict[str, Seen]) -> None:
        self._moments = moments
        self._wholes = [(name, moment.whole) for name, moment in moments.items()]
        self._seens = [(name, moment.seen) for name, moment in moments.items()]

    def _widen(self, state: State) -> str | None:
        """Make full what the optimizer made, or replaced, while windowed; or say what cannot be."""
        whole, seen = self._data.whole, self._data.seen
        for name, value in list(state.items()):
            moment = self._moments.get(name)
            if moment is not None and value is moment.seen:
                moment.write()
                state[name] = moment.whole
            elif isinstance(value, torch.Tensor) and value.numel() > 1:
                if value.shape == whole.shape:
                    continue
                if value.shape != seen.shape:
                    state.clear()
                    return _odd(name, value, "the window", seen)
                full = moment.whole if moment is not None else None
                if full is None:
                    full = torch.zeros_like(whole, dtype=value.dtype)
                    if name in SECOND_MOMENTS:
                        # Zero would make the first updates of the entries outside as large as 1/eps allows.
                        full.add_(value.mean())
                for outer, inner in self._blocks:
                    full[outer].copy_(value[inner])
                state[name] = full
        self._entries = -1
        return None


def _odd(name: str, value: torch.Tensor, what: str, other: torch.Tensor) -> str:
    return f"optimizer state {name!r} has shape {tuple(value.shape)}, {what} {tuple(other.shape)}"
