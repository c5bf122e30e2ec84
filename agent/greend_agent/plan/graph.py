"""One forward as its autograd graph: which layers were called, and what lies between them.

The graph rather than `torch.fx`, since it sees through any Python: symbolic tracing failed on four of four
well-known transformers, the graph of all of them could be walked.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from greend_agent.plan.layers import Layer, layer_of
from greend_agent.plan.probe import Run, tensors_in

_PER_CHANNEL = frozenset(
    # One output entry for each input entry, the same entries in another shape, or something done to each
    # channel by itself. What also has a form that mixes channels is for the proof to tell.
    re.findall(
        r"\w+",
        "Relu PreluKernel Gelu Silu Sigmoid Tanh LeakyRelu Elu Celu Selu Mish Softplus LogSigmoid Hardswish "
        "Hardsigmoid Hardtanh Threshold Clamp ClampMin ClampMax Pow Exp Log Sqrt Rsqrt Abs Neg Sin Cos Erf "
        "Square Sign Add Sub Rsub Mul Div NativeDropout FusedDropout Clone Alias ToCopy View UnsafeView "
        "ReshapeAlias Unsqueeze Squeeze Transpose Permute T Where MaskedFill Expand Split Slice Select "
        "Mean Sum Amax "
        "MaxPool1DWithIndices MaxPool2DWithIndices MaxPool3DWithIndices AvgPool2D AvgPool3D "
        "AdaptiveAvgPool2D AdaptiveAvgPool3D AdaptiveMaxPool2D MkldnnMaxPool2D "
        "UpsampleNearest1D UpsampleNearest2D UpsampleBilinear2D UpsampleBicubic2D UpsampleNearest3D "
        "ConstantPadNd ReflectionPad1D ReflectionPad2D ReplicationPad1D ReplicationPad2D",
    )
)
_JOINS = frozenset({"Add", "Sub", "Rsub"})
_LEAF = "AccumulateGrad"
_ATTENDS = re.compile("ScaledDotProduct|Bmm")
_HEADS_KEPT = ("_saved_query", "_saved_key", "_saved_value", "_saved_self", "_saved_mat2")


@dataclass(frozen=True, slots=True, eq=False)
class LayerCall:
    """One call of a layer. The nodes are held, as two looks at one node must give one object."""

    layer: Layer
    input_node: Any
    output_node: Any


@dataclass(frozen=True, slots=True)
class Trace:
    """The layers in the order in which a forward called them, and the FLOPs of the forward."""

    calls: tuple[LayerCall, ...]
    flops: float
    own_flops: dict[nn.Module, float]
    """The FLOPs of each module without those of the modules inside it."""
    users: dict[Any, list[Any]]
    """For each node of the graph, those that its output goes into."""

    def reads(self) -> Counter[nn.Parameter]:
        """How often the forward reads each parameter: once, where only its layer does, called once."""
        return Counter({n.variable: len(used) for n, used in self.users.items() if kind_of(n) == _LEAF})


def trace(model: nn.Module, run: Run) -> Trace:
    """Run the model once and note what its layers do."""
    calls: list[LayerCall] = []
    handles = [
        module.register_forward_hook(_noting(layer, calls), with_kwargs=True)
        for module in model.modules()
        if (layer := layer_of(module)) is not None
    ]
    own = _OwnFlops()
    try:
        with _flop_counter() as counter, own.counted(model, counter.get_total_flops):
            output = run()
    finally:
        for handle in handles:
            handle.remove()
    roots = [tensor.grad_fn for tensor in tensors_in(output) if tensor.grad_fn is not None]
    return Trace(tuple(calls), float(counter.get_total_flops()), own.found, _users(roots))


def _flop_counter() -> Any:
    # Here, since it costs an import that a process that trains nothing should not pay.
    from torch.utils import flop_counter

    # torch 2.13 counts the attention kernels of GPUs and leaves that of CPUs at nothing.
    on_cpu = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)

    def attention_flops(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return int(flop_counter.sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]

    return flop_counter.FlopCounterMode(
        display=False, custom_mapping={on_cpu: attention_flops} if on_cpu else {}
    )


def _noting(layer: Layer, calls: list[LayerCall]) -> Callable[..., None]:
    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        source = next((v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)), None)
        if source is not None and isinstance(output, torch.Tensor):
            calls.append(LayerCall(layer, source.grad_fn, output.grad_fn))

    return note


class _OwnFlops:
    """What is counted while a module runs, less what is counted while the modules inside it run."""

    def __init__(self) -> None:
        self.found: dict[nn.Module, float] = {}
        self._running: list[tuple[int, float]] = []

    @contextlib.contextmanager
    def counted(self, model: nn.Module, total: Callable[[], int]) -> Iterator[None]:
        """Hang on all modules for as long as the context lasts."""

        def begin(module: nn.Module, args: Any) -> None:
            self._running.append((total(), 0.0))

        def end(module: nn.Module, args: Any, output: Any) -> None:
            before, inside = self._running.pop()
            here = total() - before
            self.found[module] = self.found.get(module, 0.0) + here - inside
            if self._running:
                outer, others = self._running[-1]
                self._running[-1] = outer, others + here

        with contextlib.ExitStack() as stack:
            for module in model.modules():
                stack.callback(module.register_forward_pre_hook(begin).remove)
                stack.callback(module.register_forward_hook(end).remove)
            yield


@dataclass(frozen=True, slots=True)
class Source:
    """What an input comes from: layers that make it, and layers that pass it on channel by channel."""

    producers: frozenset[Layer] = frozenset()
    passes: frozenset[Layer] = frozenset()
    blocked: str | None = None
    """Why the way back ends before any layer."""


class Walk:
    """Goes back through the graph from a layer's input to what it comes from."""

    def __init__(self, seen: Trace) -> None:
        self._makers = {call.output_node: call for call in seen.calls if call.output_node is not None}
        self._known: dict[Any, Source] = {}
        self._outputs = {call.layer: call.output_node for call in seen.calls}
        self._users = seen.users
        # A layer may be several nodes: a linear one is a product between two changes of shape.
        self._readers = {node for call in seen.calls if not call.layer.passes for node in _inside(call)}

    def source(self, node: Any) -> Source:
        """Return what makes an input unit by unit."""
        try:
            return self._from(node)
        except RecursionError:
            return Source(blocked="its way back through the graph is too long")

    def _from(self, node: Any) -> Source:
        if node not in self._known:
            self._known[node] = self._at_layer(node) if node in self._makers else self._through(node)
        return self._known[node]

    def _at_layer(self, node: Any) -> Source:
        call = self._makers[node]
        if not call.layer.passes:
            return Source(producers=frozenset({call.layer}))
        if call.input_node is None:
            return Source()
        before = self._from(call.input_node)
        return Source(before.producers, before.passes | {call.layer}, before.blocked)

    def _through(self, node: Any) -> Source:
        kind = kind_of(node)
        if kind == _LEAF:
            return Source()
        # A function of somebody's own may be anything: more for the proof to tell.
        if kind not in _PER_CHANNEL and not isinstance(node, torch.autograd.function.BackwardCFunction):
            return Source(blocked=f"its input passes through {kind}, which may mix or count hidden units")
        sources = [self._from(source) for source, _ in node.next_functions if source is not None]
        blocked = next((source.blocked for source in sources if source.blocked is not None), None)
        if blocked is not None:
            return Source(blocked=blocked)
        made = [source for source in sources if source.producers]
        if kind in _JOINS and any(one.producers != made[0].producers for one in made[1:]):
            return Source(blocked="its input is a residual stream: a sum of several layers' outputs")
        none: frozenset[Layer] = frozenset()
        return Source(none.union(*(s.producers for s in made)), none.union(*(s.passes for s in made)))

    def elsewhere(self, producers: Iterable[Layer]) -> str | None:
        """Say where else the outputs of layers go to than to readers, unit by unit; None when nowhere."""
        stack = [self._outputs[layer] for layer in producers]
        met = set(stack)
        while stack:
            for user in self._users.get(stack.pop(), ()):
                if user in met or user in self._readers:
                    continue
                if (blocked := self.source(user).blocked) is not None:
                    return blocked.replace("its input", "what it makes", 1)
                met.add(user)
                stack.append(user)
        return None

    def attended(self, node: Any) -> tuple[list[Layer], set[int]] | None:
        """Return the layers whose outputs an attention mixes into an input, and sizes that a head may have.

        None where the way back has no attention on it.
        """
        producers: dict[Layer, None] = {}
        sizes: set[int] = set()
        attends = False
        for between in self._between(node, producers):
            if _ATTENDS.match(kind_of(between)):
                attends = True
                for name in _HEADS_KEPT:
                    kept = getattr(between, name, None)
                    if isinstance(kept, torch.Tensor) and kept.dim() >= 3:
                        sizes |= set(kept.shape[-2:])
        return (list(producers), sizes) if attends else None

    def _between(self, node: Any, producers: dict[Layer, None]) -> Iterator[Any]:
        """Yield the nodes between an input and the layers that it comes from, which are added."""
        stack, met = [node], {node}
        while stack:
            at = stack.pop()
            call = self._makers.get(at)
            if call is not None and not call.layer.passes:
                producers[call.layer] = None
                continue
            yield at
            for source, _ in at.next_functions:
                if source is not None and source not in met:
                    met.add(source)
                    stack.append(source)


def _inside(call: LayerCall) -> set[Any]:
    """Return the nodes of a layer's own."""
    inside: set[Any] = set()
    stack = [call.output_node]
    while stack:
        node = stack.pop()
        if node is not None and node is not call.input_node and node not in inside:
            inside.add(node)
            stack += [source for source, _ in node.next_functions]
    return inside


def _users(roots: Iterable[Any]) -> dict[Any, list[Any]]:
    """Return for each node of a graph those that its output goes into."""
    users: dict[Any, list[Any]] = {}
    stack = list(roots)
    met = set(stack)
    while stack:
        node = stack.pop()
        for source, _ in node.next_functions:
            if source is not None:
                users.setdefault(source, []).append(node)
                if source not in met:
                    met.add(source)
                    stack.append(source)
    return users


def kind_of(node: Any) -> str:
    """Return the operation that a node of the graph is of."""
    return re.sub(r"Backward\d*$", "", type(node).__name__)
