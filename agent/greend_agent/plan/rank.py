"""Which units of a width matter most, and an order that puts them first without changing the function.

A level keeps the first units. In a model that was never trained at lower levels these are no better than
any others; sorted by importance, the same level is nearer to the whole model at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from greend_agent.dial import Dial
from greend_agent.knobs.width import Side, Width
from greend_agent.plan.probe import Call, undisturbed

_SAME = 1e-4


def rank(model: nn.Module, call: Call, dials: Sequence[Dial], optimizer: Optimizer | None = None) -> str:
    """Reorder the widths that can be, all or none, and return what was done, in words."""
    movable = permutable(model, call, dials)
    try:
        reorder(model, movable, optimizer)
    except ValueError as error:
        return f"not ranked: {error}"
    return f"ranked: the units of {len(movable)} of {sum(isinstance(d, Width) for d in dials)} widths"


def importance(dial: Width, gammas: Iterable[torch.Tensor] = ()) -> torch.Tensor:
    """Return how much each unit matters, a vector of `full` numbers in a scale of the dial's own.

    Where the readers have gradients: the sum of |w * dL/dw| over the weights that read the unit, the
    first-order estimate of what the loss loses without it (Molchanov et al., Importance Estimation for
    Neural Network Pruning, 2019). Else the norm of what makes the unit, times the norm of what reads it;
    `gammas` are the scales of norms: behind one, the size of the weights that make a unit says nothing.
    """
    taylor = [
        _per_unit(side, (side.tensor * side.tensor.grad).abs(), dial.full)
        for side in dial.reads
        if side.tensor.grad is not None
    ]
    if len(taylor) == len(dial.reads):
        return torch.stack(taylor).sum(0)
    scales = {id(gamma) for gamma in gammas}
    makers = [s for s in dial.makes if id(s.tensor) in scales] or [
        s for s in dial.makes if s.tensor.dim() > 1
    ]
    made = torch.stack([_per_unit(s, s.tensor.square(), dial.full).sqrt() for s in makers]).prod(0)
    read = torch.stack([_per_unit(s, s.tensor.square(), dial.full) for s in dial.reads]).sum(0).sqrt()
    return made * read


@torch.no_grad()
def reorder(
    model: nn.Module, dials: Sequence[Dial], optimizer: Optimizer | None = None
) -> dict[Dial, torch.Tensor]:
    """Put the most important units of each width first, and return the old places in the new order.

    Weights, statistics, gradients and the optimizer's state move together and in place, whole units only:
    the function and its further training stay what they were, up to rounding. The model must be full.
    Copies of the weights that others keep (averages, snapshots) stay in the old order. Raises ValueError,
    before anything is moved, if a weight is in parts or the optimizer keeps state that cannot follow.
    """
    widths = [dial for dial in dials if isinstance(dial, Width)]
    if (misfit := _misfit(widths, optimizer)) is not None:
        raise ValueError(f"cannot reorder the units of {type(model).__name__}: {misfit}")
    gammas = [m.weight for m in model.modules() if isinstance(m, _NormBase) and m.weight is not None]
    # All before the first move: what is measured must not depend on the order of the dials.
    orders: dict[Dial, torch.Tensor] = {
        dial: importance(dial, gammas).argsort(descending=True, stable=True) for dial in widths
    }
    for dial in widths:
        _permute(dial, orders[dial], optimizer)
    return orders


def permutable(model: nn.Module, call: Call, dials: Sequence[Dial]) -> list[Dial]:
    """Return the widths whose units can change places: seen to give the same in the opposite order.

    A proven width need not be one. Where its units meet a constant vector, or their number, the first ones
    stay what they are when the others are left out, but not when they change places.
    """
    good: list[Dial] = []
    for batch in _unrelated([dial for dial in dials if isinstance(dial, Width)]):
        if _is_symmetric(model, call, batch):
            good += batch
        elif len(batch) > 1:
            good += [dial for dial in batch if _is_symmetric(model, call, [dial])]
    return good


def _is_symmetric(model: nn.Module, call: Call, dials: Sequence[Width]) -> bool:
    readers = list(dict.fromkeys(reader for dial in dials for reader in dial.readers))
    before = _seen(model, call, readers)
    _reverse(dials)
    try:
        after = _seen(model, call, readers)
    finally:
        _reverse(dials)
    return all(
        bool(torch.isfinite(b).all()) and float((a - b).abs().max()) <= _SAME * float(b.abs().max())
        for a, b in zip(after, before, strict=True)
    )


def _seen(model: nn.Module, call: Call, readers: Sequence[nn.Module]) -> list[torch.Tensor]:
    seen: dict[nn.Module, torch.Tensor] = {}

    def note(module: nn.Module, args: Any, output: torch.Tensor) -> None:
        seen[module] = output.detach().clone()

    handles = [reader.register_forward_hook(note) for reader in readers]
    try:
        # One loan for each look: it ends with the buffers of its beginning, and these change places too.
        with undisturbed(model, call) as run, torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return [seen[reader] for reader in readers if reader in seen]


@torch.no_grad()
def _reverse(dials: Sequence[Width]) -> None:
    for dial in dials:
        _permute(dial, torch.arange(dial.full - 1, -1, -1), None)


def _unrelated(dials: Sequence[Width]) -> list[list[Width]]:
    """Part the widths so that in no part a reader of one makes another: its outputs would change places."""
    parts: list[list[Width]] = []
    touched: list[set[int]] = []
    for dial in dials:
        mine = {id(side.tensor) for side in (*dial.makes, *dial.reads)}
        which = next((k for k, tensors in enumerate(touched) if not tensors & mine), len(parts))
        if which == len(parts):
            parts.append([])
            touched.append(set())
        parts[which].append(dial)
        touched[which] |= mine
    return parts


def _permute(dial: Width, order: torch.Tensor, optimizer: Optimizer | None) -> None:
    # A tensor may be named twice, as by two readers that are one.
    sides = {(id(s.tensor), s.dim): s for s in (*dial.makes, *dial.reads)}
    for side in sides.values():
        index = _entries(side, order.to(side.tensor.device), dial.full)
        for tensor in _moving(side.tensor, optimizer):
            tensor.copy_(tensor.index_select(side.dim, index))


def _moving(tensor: torch.Tensor, optimizer: Optimizer | None) -> list[torch.Tensor]:
    """A tensor, its gradient, and the optimizer's state of the same shape."""
    state = optimizer.state.get(tensor, {}) if optimizer is not None else {}
    beside = [tensor.grad, *(v for v in state.values() if isinstance(v, torch.Tensor) and v.numel() > 1)]
    return [tensor, *(b for b in beside if b is not None)]


def _misfit(widths: Iterable[Width], optimizer: Optimizer | None) -> str | None:
    for dial in widths:
        for side in (*dial.makes, *dial.reads):
            if type(side.tensor) not in (torch.Tensor, nn.Parameter):
                return f"{dial.name} has a {type(side.tensor).__name__}"
            for tensor in _moving(side.tensor, optimizer):
                if tensor.shape != side.tensor.shape:
                    shapes = f"{tuple(tensor.shape)} beside {tuple(side.tensor.shape)}"
                    return f"{type(optimizer).__name__} keeps a tensor of {shapes} for {dial.name}"
    return None


def _entries(side: Side, order: torch.Tensor, full: int) -> torch.Tensor:
    """The entries of all units in an order, segment by segment."""
    parts, start = [], 0
    for unit in side.units:
        within = torch.arange(unit, device=order.device)
        parts.append((start + order[:, None] * unit + within).flatten())
        start += full * unit
    return torch.cat(parts)


def _per_unit(side: Side, values: torch.Tensor, full: int) -> torch.Tensor:
    """The sum of the values of each unit, in double precision."""
    by_entry = values.detach().double().movedim(side.dim, 0).reshape(values.shape[side.dim], -1).sum(1)
    parts = torch.split(by_entry, [full * unit for unit in side.units])
    return torch.stack([p.reshape(full, -1).sum(1) for p in parts]).sum(0)
