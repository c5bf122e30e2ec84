"""Run the user's model beside its training, so that nothing of it can be seen afterwards."""

from __future__ import annotations

import contextlib
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from greend_agent.randomness import random_numbers_kept

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

    def few(self, samples: int = 2) -> Call:
        """Return the call with the first samples only, taken to lie along the first dimension."""
        batch = next((t.shape[0] for t in tensors_in((self.args, self.kwargs)) if t.dim()), 0)

        def first(tensor: torch.Tensor) -> torch.Tensor:
            return tensor[:samples] if tensor.dim() and tensor.shape[0] == batch > samples else tensor

        return Call(_mapped(self.args, first), _mapped(self.kwargs, first))


class Run:
    """Runs the model and leaves no trace: each time from the same random numbers, buffers and attributes."""

    def __init__(self, model: nn.Module, call: Call) -> None:
        self._model, self._call = model, call
        self._usual: dict[bool, list[torch.Size]] = {}

    def __call__(self, *, training: bool = False, dropout: bool = False) -> Any:
        """Run in eval mode, or in the modes that the modules are in, where not asked for without dropout."""
        # Anew for each run, as a dial may be turned down meanwhile.
        state = _State(self._model)
        try:
            for module in self._model.modules():
                if not training:
                    module.training = False
                elif not dropout:
                    _stop_dropping(module)
            # A model may change what it is given.
            again = Call.of(self._call.args, self._call.kwargs)
            with random_numbers_kept(_cuda_devices()):
                return self._model(*again.args, **again.kwargs)
        finally:
            state.restore()

    def usual_shapes(self, *, training: bool) -> list[torch.Size]:
        """Return the shapes of what the untouched model returns; to be asked first when it is untouched."""
        if training not in self._usual:
            self._usual[training] = [tensor.shape for tensor in tensors_in(self(training=training))]
        return self._usual[training]


@contextlib.contextmanager
def undisturbed(model: nn.Module, call: Call) -> Iterator[Run]:
    """Lend the model for some runs with gradients on; all is as before when it is given back.

    Two samples of the call are enough to see how a model is made, where it can be run with two.
    """
    with torch.enable_grad():
        run = Run(model, call.few())
        try:
            run()
        except Exception:  # a batch that the model counts on, or another layout than batch first
            run = Run(model, call)
        yield run


def _stop_dropping(module: nn.Module) -> None:
    # Whatever the probability is called. What is dropped is random, and another thing in a narrower model.
    for name, value in list(vars(module).items()):
        if type(value) is float and ("drop" in name or (name == "p" and isinstance(module, _DropoutNd))):
            vars(module)[name] = 0.0


@contextlib.contextmanager
def borrowed(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Lend a tensor's data to be written to; its values are put back, and its version does not change."""
    data = tensor.data
    values = data.clone()
    try:
        yield data
    finally:
        data.copy_(values)


@contextlib.contextmanager
def other_weights(model: nn.Module) -> Iterator[None]:
    """Give a model other weights inside, of a size to which training brings them.

    Fresh weights hide mistakes: with queries near zero every layout of heads looks right, and behind a
    projection that is zero nothing is seen at all. What holds for how a model is made holds for any.
    """
    params = [p for p in model.parameters() if p.is_floating_point() and type(p) is nn.Parameter]
    # A block of random numbers over and over, which costs a copy; of prime length, so that no two rows of
    # a usual width are equal.
    block = torch.randn(65521, generator=torch.Generator().manual_seed(0))
    with contextlib.ExitStack() as stack:
        # All before any is written to: where memory does not suffice, nothing has happened yet.
        for data in [stack.enter_context(borrowed(param)) for param in params]:
            if data.numel():
                noise = block[: data.numel()].to(data)
                noise = noise.repeat(-(-data.numel() // len(noise)))[: data.numel()].view(data.shape)
                if data.dim() > 1:
                    data.copy_(noise.mul_((1.5 * data.shape[0] / data.numel()) ** 0.5))
                else:
                    data.add_(noise, alpha=0.2)
        yield


class _State:
    """Buffers, and the attributes of the modules, to be put back."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = [
            (m, dict(vars(m)), {c: dict(vars(m)[c]) for c in _CONTAINERS}) for m in model.modules()
        ]
        # Not torch's own dictionaries: the hooks with which a run is observed are in them.
        own = vars(nn.Module()).keys()
        noted = {id(v): v for m in model.modules() for name, v in vars(m).items() if name not in own}
        self._noted = [(v, v.copy()) for v in noted.values() if type(v) in _COLLECTIONS]
        self._buffers = [(b, b._version, b.detach().clone()) for b in model.buffers()]

    def restore(self) -> None:
        for module, attributes, contents in self._modules:
            _put_back(vars(module), attributes)
            for container, content in contents.items():
                _put_back(vars(module)[container], content)
        for collection, content in self._noted:
            collection.clear()
            (collection.extend if isinstance(content, (list, deque)) else collection.update)(content)
        with torch.no_grad():
            for buffer, version, value in self._buffers:
                # Batch norm updates its buffers without a new version.
                if buffer._version != version or not torch.equal(buffer, value):
                    buffer.copy_(value)


def _cuda_devices() -> range:
    # Asking for the generators' state would initialise it.
    is_up = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return range(torch.cuda.device_count() if is_up else 0)


def _put_back(now: dict[str, Any], before: dict[str, Any]) -> None:
    for name in now.keys() - before.keys():
        del now[name]
    for name, value in before.items():
        if now.get(name, now) is not value:
            now[name] = value


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Return the tensors in a model's arguments or output, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def _apart(value: Any) -> Any:
    return _mapped(value, lambda tensor: tensor.detach().clone().requires_grad_(tensor.requires_grad))


def _mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return the same structure with each tensor changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, tuple):
        items = [_mapped(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if type(value) is list:
        return [_mapped(item, change) for item in value]
    if type(value) is dict:
        return {key: _mapped(item, change) for key, item in value.items()}
    return value
