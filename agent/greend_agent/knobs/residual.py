"""Blocks of a model that add something to what they are given, and with all weights at zero add nothing."""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from greend_agent.plan.graph import kind_of
from greend_agent.plan.probe import Run

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

_ADDITIVE = frozenset(
    # What a sum passes through unchanged; of the last two, that it does so is seen in the numbers.
    re.findall(
        r"\w+",
        "Add Sub Alias Clone View UnsafeView ReshapeAlias Transpose Permute T Unsqueeze Squeeze ToCopy "
        "Relu Hardtanh",
    )
)

_IN_PLACE = "what it returns is changed in place afterwards"


def candidates(model: nn.Module) -> dict[nn.Module, str]:
    """Return the members of the model's lists and sequences that have layers of their own."""
    return {
        child: f"{name}.{key}" if name else key
        for name, parent in model.named_modules()
        if isinstance(parent, _CONTAINERS)
        for key, child in parent.named_children()
        if not isinstance(child, (nn.ModuleList, nn.ModuleDict))
        and any(True for _ in child.children())
        and any(True for _ in child.parameters())
    }


@dataclass(slots=True, eq=False)
class Visit:
    """What one block did in one forward."""

    module: nn.Module
    calls: int = 0
    reason: str | None = None
    """Why it cannot be skipped; empty where nobody would expect it to be."""
    stream: int | str = 0
    """Which argument it adds to."""
    place: tuple[type, int, int] | None = None
    """What it returns: None for a tensor, or the kind and length of a sequence, and where the tensor is."""
    influence: float = 0.0
    """1 - the cosine of the angle between what it is given and what it returns, mean over the batch."""
    given: dict[int | str, torch.Tensor] = field(default_factory=dict)
    output: torch.Tensor | None = None
    versions: dict[int, int] = field(default_factory=dict)


def observe(run: Run, blocks: Iterable[nn.Module]) -> list[Visit]:
    """Run the model once in eval mode; return what the blocks did, in the order in which they were called."""
    visits: dict[nn.Module, Visit] = {}

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        visit = visits.setdefault(module, Visit(module))
        visit.calls += 1
        visit.given = _tensors_of(args, kwargs)
        visit.versions = {id(x): x._version for x in visit.given.values()}

    def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        visit = visits[module]
        visit.reason = visit.reason or _look(visit, output)

    with contextlib.ExitStack() as hooks:
        for block in blocks:
            hooks.callback(block.register_forward_pre_hook(enter, with_kwargs=True).remove)
            hooks.callback(block.register_forward_hook(leave, with_kwargs=True).remove)
        run()
    for visit in visits.values():
        if visit.calls > 1:
            visit.reason = f"it is called {visit.calls} times in a forward"
        elif visit.output is not None and visit.output._version != visit.versions[id(visit.output)]:
            visit.reason = visit.reason if visit.reason is not None else _IN_PLACE
        visit.given, visit.output = {}, None
    return list(visits.values())


def _look(visit: Visit, output: Any) -> str | None:
    """Note what a block returned, and which argument it adds to; or say why it is not residual."""
    if not isinstance(output, torch.Tensor):
        items = list(output) if type(output) in (tuple, list) else []
        where = [k for k, item in enumerate(items) if isinstance(item, torch.Tensor)]
        if len(where) != 1 or any(item is not None for k, item in enumerate(items) if k != where[0]):
            return f"it returns {_described(output)}, of which more than one tensor may be needed"
        visit.place = type(output), len(items), where[0]
        output = items[where[0]]
    if not output.is_floating_point() or output.grad_fn is None:
        return "what it returns has no gradient, so that its way through the block cannot be seen"
    visit.output, visit.versions[id(output)] = output, output._version
    like = {k: x for k, x in visit.given.items() if x.shape == output.shape and x.dtype == output.dtype}
    if not like:
        return ""
    summed, others = _summands(output.grad_fn)
    for where_given, x in like.items():
        if x is output or x._version != visit.versions[id(x)]:
            return "it changes in place what it is given"
        if x.requires_grad and torch.autograd.graph.get_gradient_edge(x).node in summed:
            visit.stream = where_given
            visit.influence = _influence(x, output)
            return None
    return f"what it is given does not reach its output by addition alone, but through {others}"


@torch.no_grad()
def _influence(x: torch.Tensor, output: torch.Tensor) -> float:
    before, after = (t.detach().float().reshape(len(t) if t.dim() else 1, -1) for t in (x, output))
    return 1.0 - float(nn.functional.cosine_similarity(before, after, dim=-1).mean())


def _summands(node: Any) -> tuple[set[Any], str]:
    """Return the nodes that a sum is made of, and the kinds of those that are not sums themselves."""
    seen: set[Any] = set()
    stack, others = [node], set[str]()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        kind = kind_of(node)
        if kind in _ADDITIVE:
            stack += [source for source, _ in node.next_functions]
        else:
            others.add(kind)
    return seen, ", ".join(sorted(others))


def not_identity(run: Run, visits: Iterable[Visit]) -> dict[nn.Module, str]:
    """Return the blocks that are not the identity when their weights are zero, with the reason.

    One forward, in which nothing is written to any parameter: zeros take their places, block by block.
    """
    reasons: dict[nn.Module, str] = {}
    seen: set[nn.Module] = set()
    replaced: dict[nn.Module, list[tuple[dict[str, Any], str, Any]]] = {}
    by_module = {visit.module: visit for visit in visits}

    def enter(module: nn.Module, args: Any) -> None:
        replaced[module] = [
            (part._parameters, name, param)
            for part in module.modules()
            for name, param in part._parameters.items()
            if param is not None
        ]
        for params, name, param in replaced[module]:
            params[name] = torch.zeros_like(param)

    def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        put_back(module)
        seen.add(module)
        visit = by_module[module]
        x = _tensors_of(args, kwargs)[visit.stream]
        out = output if visit.place is None else output[visit.place[2]]
        if not x.any():
            reasons[module] = "what it is given is all zero, where nothing can be seen"
        elif not torch.equal(out, x):
            reasons[module] = "with all its weights at zero it is not the identity"

    def put_back(module: nn.Module) -> None:
        for params, name, param in replaced.pop(module, ()):
            params[name] = param

    with contextlib.ExitStack() as hooks:
        for block in by_module:
            hooks.callback(put_back, block)
            hooks.callback(block.register_forward_pre_hook(enter).remove)
            hooks.callback(block.register_forward_hook(leave, with_kwargs=True).remove)
        try:
            run()
        except Exception as error:
            reason = f"with its weights at zero the model raises {type(error).__name__}"
            reasons |= {block: reason for block in by_module if block not in seen}
    return reasons


def identity(visit: Visit) -> Callable[..., Any]:
    """Return a forward that gives back what the block adds to, in the form in which the block returns it."""
    names = [
        p.name
        for p in inspect.signature(visit.module.forward).parameters.values()
        if p.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ]
    # A wrapper such as activation checkpointing may hand over by position what was named, and the reverse.
    stream, place = visit.stream, visit.place
    if isinstance(stream, str):
        name, position = stream, names.index(stream) if stream in names else sys.maxsize
    else:
        name, position = names[stream] if stream < len(names) else "", stream

    def forward(*args: Any, **kwargs: Any) -> Any:
        x = args[position] if len(args) > position else kwargs[name]
        if place is None:
            return x
        kind, length, where = place
        return kind([x if k == where else None for k in range(length)])

    return forward


def _tensors_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[int | str, torch.Tensor]:
    given: Iterator[tuple[int | str, Any]] = iter([*enumerate(args), *kwargs.items()])
    return {k: x for k, x in given if isinstance(x, torch.Tensor) and x.is_floating_point()}


def _described(output: Any) -> str:
    if type(output) in (tuple, list):
        return f"{type(output).__name__} of {', '.join(type(item).__name__ for item in output)}"
    return f"a {type(output).__name__}"
