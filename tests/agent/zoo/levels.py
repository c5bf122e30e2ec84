"""What the levels of a plan do to a model: what remains of them, what moves, what they cost."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from greend_agent.dial import Dial, spread
from greend_agent.plan import Plan
from greend_agent.windows.ladder import Index
from greend_agent.windows.window import WindowSet

from .family import Inputs, tensors, training_loss


def traces_of_levels(model: nn.Module, plan: Plan, inputs: Inputs) -> list[str]:
    """Return what remains different of a model after top, least, next, top; nothing, if all is well."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = _eval(model, inputs)
    windows = WindowSet(plan.ladder)
    for level in (windows.top, 0, min(1, windows.top), windows.top):
        windows.apply(level)
        _eval(model, inputs)
    after = model.state_dict()
    wrong = [name for name, value in before.items() if name not in after or not _same(after[name], value)]
    if list(before) != list(after):
        wrong.append("the keys of state_dict")
    if not all(map(_same, _eval(model, inputs), expected)):
        wrong.append("the output")
    return wrong


def moved_though_inactive(model: nn.Module, plan: Plan, inputs: Inputs) -> list[str]:
    """Take an AdamW step at each level, least first; return the parameters that moved outside the windows."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ladder = plan.ladder
    windows = WindowSet(ladder, optimizer)
    kept = {window.param: window.indices for window in ladder.windows}
    wrong = []
    model.train()
    for level in range(ladder.levels):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        windows.apply(level)
        args, kwargs = copy.deepcopy(inputs)
        optimizer.zero_grad()
        training_loss(model(*args, **kwargs)).backward()  # type: ignore[no-untyped-call]
        for param in ladder.idle[level]:
            param.grad = None
        optimizer.step()
        windows.stepped()
        windows.restore()
        for name, param in model.named_parameters():
            index = kept[param][level] if param in kept else None
            moved, idle = param.detach() != before[name], param in ladder.idle[level]
            if not _outside(moved, index, idle):
                wrong.append(f"level {level}: {name}")
            if index is not None and not idle and not moved[index].any():
                wrong.append(f"level {level}: {name} does not train")
    return wrong


def _outside(moved: torch.Tensor, index: Index | None, idle: bool) -> bool:
    """Whether nothing has moved outside of an index."""
    if idle:
        return not moved.any()
    if index is None:
        return True
    outside = moved.clone()
    outside[index] = False
    return not outside.any()


def _eval(model: nn.Module, inputs: Inputs) -> list[torch.Tensor]:
    was = model.training
    args, kwargs = copy.deepcopy(inputs)
    with torch.no_grad():
        output = tensors(model.eval()(*args, **kwargs))
    model.train(was)
    return output


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool(torch.equal(a, b))


def flops(call: Callable[[], Any]) -> float:
    """Return the FLOPs of a call, as torch counts them."""
    # Attention as products of matrices: the kernel that CPUs have for it is not counted at all.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def flops_at(model: nn.Module, dials: Sequence[Dial], counts: Sequence[int], inputs: Inputs) -> float:
    """Return the FLOPs of a forward with dials turned, relative to the whole model, counted by torch."""
    windows = WindowSet(spread(dials, [list(counts), [dial.full for dial in dials]]))
    was = model.training

    def call() -> None:
        # With gradients on: torch's own encoder otherwise takes a path of which no FLOPs are counted.
        args, kwargs = copy.deepcopy(inputs)
        model.eval()(*args, **kwargs)

    whole = flops(call)
    windows.apply(0)
    try:
        return flops(call) / whole
    finally:
        windows.restore()
        model.train(was)


def quarter(dials: Sequence[Dial]) -> list[int]:
    """Return the counts of all dials at a quarter."""
    return [dial.count(0.25, 4) for dial in dials]


def levels_below(plan: Plan) -> Iterator[tuple[int, ...]]:
    """Yield the counts of each level but the top."""
    yield from plan.table.counts[:-1]
