"""Run the user's model beside its training, so that nothing of it can be seen afterwards."""

from __future__ import annotations

import contextlib
import random
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn


class Run(Protocol):
    """Runs the model once and returns its output, each time from the same random numbers and buffers."""

    def __call__(self, *, training: bool = False) -> Any:
        """Run in eval mode, where nothing is random, or in the modes that the modules are in."""
        ...


_CONTAINERS = ("_parameters", "_buffers", "_modules")
_COLLECTIONS = (list, dict, set, deque, OrderedDict, defaultdict)
"""What a model may note something in as it runs, such as the losses of its parts."""


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of one forward, of which nothing is shared with the user."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Copy the arguments of a forward: the user may fill the same tensors with the next batch."""
        return cls(_apart(args), _apart(kwargs))


@contextlib.contextmanager
def undisturbed(model: nn.Module, call: Call) -> Iterator[Run]:
    """Lend the model for some runs with gradients on; all is as before when it is given back."""
    state = _State(model)

    def run(*, training: bool = False) -> Any:
        state.restore()
        for module in model.modules() if not training else ():
            module.training = False
        # A model may change what it is given.
        again = Call.of(call.args, call.kwargs)
        return model(*again.args, **again.kwargs)

    try:
        with torch.enable_grad():
            yield run
    finally:
        state.restore()


class _State:
    """Random numbers, buffers, and the attributes of the modules, to be put back."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = [
            (m, dict(vars(m)), {c: dict(vars(m)[c]) for c in _CONTAINERS}) for m in model.modules()
        ]
        # Not torch's own dictionaries: the hooks with which a run is observed are in them.
        own = vars(nn.Module()).keys()
        noted = {id(v): v for m in model.modules() for name, v in vars(m).items() if name not in own}
        self._noted = [(v, v.copy()) for v in noted.values() if type(v) in _COLLECTIONS]
        self._buffers = [(b, b._version, b.detach().clone()) for b in model.buffers()]
        self._python = random.getstate()
        numpy = sys.modules.get("numpy")
        self._numpy = numpy.random.get_state() if numpy is not None else None
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if _cuda_is_up() else []

    def restore(self) -> None:
        for module, attributes, contents in self._modules:
            _put_back(vars(module), attributes)
            for container, content in contents.items():
                _put_back(vars(module)[container], content)
        for collection, content in self._noted:
            collection.clear()
            (collection.extend if isinstance(content, (list, deque)) else collection.update)(content)
        with torch.no_grad():
            for which, (buffer, version, value) in enumerate(self._buffers):
                # Batch norm updates its buffers without a new version.
                if buffer._version != version or not torch.equal(buffer, value):
                    buffer.copy_(value)
                    self._buffers[which] = buffer, buffer._version, value
        random.setstate(self._python)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)
        torch.set_rng_state(self._cpu)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)


def _cuda_is_up() -> bool:
    # Asking for the generators' state would initialise it.
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _put_back(now: dict[str, Any], before: dict[str, Any]) -> None:
    for name in now.keys() - before.keys():
        del now[name]
    for name, value in before.items():
        if now.get(name, now) is not value:
            now[name] = value


def _apart(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, tuple):
        items = [_apart(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if type(value) is list:
        return [_apart(item) for item in value]
    if type(value) is dict:
        return {key: _apart(item) for key, item in value.items()}
    return value
