"""Walk the autograd graph of one forward to the layers whose hidden width is nobody else's business.

The graph rather than `torch.fx`, since it sees through any Python: symbolic tracing failed on four of four
well-known transformers, the graph of all of them could be walked. What it proposes is only a proposal;
`prove` decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from greend_agent.knobs.width import Side, Width
from greend_agent.plan.probe import Run

_PER_CHANNEL = frozenset(
    # One output entry for each input entry, or the same entries in another shape.
    re.findall(
        r"\w+",
        "Relu Gelu Silu Sigmoid Tanh LeakyRelu Elu Celu Selu Mish Softplus LogSigmoid Hardswish Hardsigmoid "
        "Hardtanh Threshold Clamp ClampMin ClampMax Pow Exp Log Sqrt Rsqrt Abs Neg Sin Cos Erf Square Sign "
        "Add Sub Rsub Mul Div NativeDropout FusedDropout Clone Alias ToCopy View UnsafeView ReshapeAlias "
        "Unsqueeze Squeeze Transpose Permute T Where MaskedFill",
    )
)
_JOINS = frozenset({"Add", "Sub", "Rsub"})
_LEAF = "AccumulateGrad"


@dataclass(frozen=True, slots=True, eq=False)
class LinearCall:
    """One call of a linear layer. The nodes are held, as two looks at one node must give one object."""

    linear: nn.Linear
    rows: int
    input_node: Any
    output_node: Any


@dataclass(frozen=True, slots=True)
class Trace:
    """The linear layers in the order in which a forward called them, and the FLOPs of the whole forward."""

    calls: tuple[LinearCall, ...]
    flops: float


def trace(model: nn.Module, run: Run) -> Trace:
    """Run the model once and note what its linear layers do."""
    # Here, since it costs an import that a process that trains nothing should not pay.
    from torch.utils.flop_counter import FlopCounterMode

    calls: list[LinearCall] = []

    def note(linear: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(linear, nn.Linear) and isinstance(output, torch.Tensor):
            source = args[0].grad_fn if args and isinstance(args[0], torch.Tensor) else None
            rows = output.numel() // max(1, output.shape[-1])
            calls.append(LinearCall(linear, rows, source, output.grad_fn))

    handles = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.Linear)]
    try:
        with FlopCounterMode(display=False) as counter:
            run()
    finally:
        for handle in handles:
            handle.remove()
    return Trace(tuple(calls), float(counter.get_total_flops()))


def find_groups(
    model: nn.Module, seen: Trace, trained: Collection[nn.Parameter] | None = None
) -> tuple[list[Width], list[tuple[str, str]]]:
    """Return the groups to be proven, and what cannot be one, with the reason."""
    names = {m: name for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    fit = _Fitness(model, seen, None if trained is None else {id(p) for p in trained})
    walk = _Walk({call.output_node: call.linear for call in seen.calls if call.output_node is not None})
    found: list[tuple[set[nn.Linear], nn.Linear]] = []
    rejected: list[tuple[str, str]] = []
    for call in seen.calls:
        if call.input_node is None:
            continue
        producers, reason = walk.producers(call.input_node)
        if producers:
            width = call.linear.in_features
            reason = fit.reason([*producers, call.linear])
            if reason is None and any(p.out_features != width for p in producers):
                reason = "its input is only a part of what makes it, or several in a row"
        name = _name(producers, [call.linear], names)
        if reason is not None and (name, reason) not in rejected:
            rejected.append((name, reason))
        elif producers and reason is None:
            found.append((producers, call.linear))
    return [_group(*one, names) for one in _merged(found)], rejected


def _group(producers: Iterable[nn.Linear], consumers: list[nn.Linear], names: dict[nn.Linear, str]) -> Width:
    order = list(names)
    inside = tuple(sorted(producers, key=order.index))
    name = _name(inside, consumers, names)
    makes = [Side(p, 0) for producer in inside for p in (producer.weight, producer.bias) if p is not None]
    reads = tuple(Side(consumer.weight, 1) for consumer in consumers)
    return Width("ffn", name, consumers[0].in_features, tuple(makes), reads, tuple(consumers))


def _name(producers: Iterable[nn.Linear], consumers: Iterable[nn.Linear], names: dict[nn.Linear, str]) -> str:
    sides = [" * ".join(sorted(names[m] or "model" for m in side)) for side in (producers, consumers)]
    return " -> ".join(side for side in sides if side)


def _merged(
    found: list[tuple[set[nn.Linear], nn.Linear]],
) -> list[tuple[set[nn.Linear], list[nn.Linear]]]:
    """Join what shares a producer: two heads that read one hidden layer narrow together."""
    merged: list[tuple[set[nn.Linear], list[nn.Linear]]] = []
    for producers, consumer in found:
        apart = [one for one in merged if not one[0] & producers]
        joined = [one for one in merged if one[0] & producers]
        everything = producers.union(*(one[0] for one in joined))
        merged = [*apart, (everything, [*(c for one in joined for c in one[1]), consumer])]
    return merged


class _Fitness:
    """Which layers can be windowed at all."""

    def __init__(self, model: nn.Module, seen: Trace, trained: set[int] | None) -> None:
        self._called = Counter(call.linear for call in seen.calls)
        self._owners = Counter(
            id(p) for m in model.modules() for p in m._parameters.values() if p is not None
        )
        self._trained = trained

    def reason(self, linears: Iterable[nn.Linear]) -> str | None:
        """Why one of the layers cannot; None when all can."""
        return next((why for linear in linears if (why := self._one(linear))), None)

    def _one(self, linear: nn.Linear) -> str | None:
        if self._called[linear] != 1:
            return f"a layer is called {self._called[linear]} times in a forward"
        if type(linear).forward is not nn.Linear.forward or "forward" in vars(linear):
            return f"a layer is a {type(linear).__name__} with a forward of its own"
        for name in ("weight", "bias"):
            param = linear._parameters.get(name)
            if param is None and (name == "weight" or getattr(linear, name) is not None):
                return f"a {name} is computed (parametrized), not a parameter"
            if param is None:
                continue
            if type(param) is not nn.Parameter:
                return f"a {name} is a {type(param).__name__}"
            if self._owners[id(param)] != 1:
                return f"a {name} is tied to another layer's"
            if self._trained is not None and id(param) not in self._trained:
                return f"a {name} is not trained by the optimizer"
            if param._backward_hooks or getattr(param, "_post_accumulate_grad_hooks", None):
                return f"a {name} has a gradient hook that may expect its full shape"
        return None


class _Walk:
    """Goes back from a layer's input to the linear layers that it comes from, unit by unit."""

    def __init__(self, makers: dict[Any, nn.Linear]) -> None:
        self._makers = makers
        self._known: dict[Any, tuple[set[nn.Linear], str | None]] = {}

    def producers(self, node: Any) -> tuple[set[nn.Linear], str | None]:
        """Return the producers, or none and the reason why the way back to them is blocked."""
        try:
            return self._from(node)
        except RecursionError:
            return set(), "its way back through the graph is too long"

    def _from(self, node: Any) -> tuple[set[nn.Linear], str | None]:
        if node in self._makers:
            return {self._makers[node]}, None
        if node not in self._known:
            self._known[node] = self._through(node)
        return self._known[node]

    def _through(self, node: Any) -> tuple[set[nn.Linear], str | None]:
        kind = re.sub(r"Backward\d*$", "", type(node).__name__)
        if kind == _LEAF:
            return set(), None
        if kind not in _PER_CHANNEL:
            return set(), f"its input passes through {kind}, which may mix or count hidden units"
        sources = [self._from(source) for source, _ in node.next_functions if source is not None]
        blocked = next((reason for _, reason in sources if reason is not None), None)
        if blocked is not None:
            return set(), blocked
        sets = [producers for producers, _ in sources if producers]
        if kind in _JOINS and any(one != sets[0] for one in sets[1:]):
            return set(), "its input is a residual stream: a sum of several layers' outputs"
        return set().union(*sets), None
