"""torch.compile: one graph per level, none of which knows of greend.

Compiled code is guarded by the sizes of the parameters, so that each level has a graph of its own, with
static shapes, made when the level is first entered; from then on changing levels compiles nothing. How the
model was compiled decides where a step can be seen to begin: at `torch.compile(model)`, in the wrapper; after
`model.compile()`, in front of the compiled call; with compiled parts in an eager model, at the model.
Planning runs the model eagerly, as the graph walk and the proof hang hooks on its layers.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from greend.clock import mono_ns
from greend_agent import refusals
from greend_agent.compiling import IN_PLACE, is_compiled, is_loaded, original
from greend_agent.engines.compile_times import CompileTimes
from greend_agent.engines.doorway import Doorway
from greend_agent.engines.local import Engine
from greend_agent.hook import Hook
from greend_agent.plan import Call, Plan
from greend_agent.plan.probe import Run, tensors_in
from greend_agent.windows.window import WindowSet

_PARALLEL = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel")

_GRAPHS_PER_LEVEL = 4
"""In training and in evaluation, each for one batch size and then for any."""


def engine_of(model: nn.Module, callers: Sequence[nn.Module] = ()) -> Compiled | str | None:
    """Return what runs a model of which something is compiled; the reason why it cannot; None: nothing is.

    `callers`: what the training loop may call, where that is not `model` alone.
    """
    callers = callers or [model]
    if not any(is_compiled(m) for caller in callers for m in caller.modules()):
        return None
    if type(original(model)).__name__ in _PARALLEL or refusals.processes() > 1:
        return "torch.compile with several processes: a level that one of them has to compile stops them all"
    if not hasattr(torch.compiler, "set_stance"):
        return "torch 2.6 or newer is needed to plan a model of which something is compiled"
    return Compiled(callers)


class Compiled(Engine):
    """One process, and a graph per level."""

    compact = True  # strides are guarded too: a second layout would be a second graph

    def __init__(self, callers: Sequence[nn.Module], clock: Callable[[], int] = mono_ns) -> None:
        super().__init__(callers[0])
        self._callers = tuple(callers)
        self._doorways: list[Doorway] = []
        self._beside: list[Any] = []
        self._times = CompileTimes(clock)
        self._costs: tuple[float, ...] = (1.0,)

    @property
    def model(self) -> nn.Module:
        """The module inside the wrapper."""
        return original(self.outer)

    @property
    def callers(self) -> tuple[nn.Module, ...]:
        """The wrappers, and where it is called itself the module."""
        return self._callers

    def on_forward(self, hook: Hook) -> list[Any]:
        """Have a hook called before each forward, outside of any graph."""
        self._doorways = [
            Doorway(caller, "forward" if original(caller) is not caller else IN_PLACE, hook)
            for caller in self._callers
            if is_compiled(caller)
        ]
        self._beside = [m.register_forward_pre_hook(_Untraced(hook), with_kwargs=True) for m in self._plain]
        return [*self._doorways, *self._beside]

    def on_forward_end(self, hook: Hook, make: Callable[[Callable[[], Any]], Any]) -> list[Any]:
        """Have a hook called after each forward, outside of any graph; a doorway makes calls again itself."""
        for doorway in self._doorways:
            doorway.after = hook
        return [m.register_forward_hook(_Untraced(hook), always_call=True) for m in self._plain]

    @property
    def _plain(self) -> list[nn.Module]:
        return [caller for caller in self._callers if not is_compiled(caller)]

    def agree(self, plan: Plan) -> str | None:
        """Make room for the graphs of all levels; say why there cannot be."""
        if (reason := super().agree(plan)) is not None:
            return reason
        levels = len(plan.table)
        own = min(filter(None, map(_own_limit, self._compiled_calls())), default=None)
        if own is not None and own < levels * _GRAPHS_PER_LEVEL:
            return (
                f"{levels} levels need up to {levels * _GRAPHS_PER_LEVEL} graphs, and torch.compile was "
                f"given recompile_limit={own}: leave that out, or ask for fewer levels"
            )
        self._costs = plan.table.costs
        self.notes = [f"torch.compile: one graph for each of {levels} levels, made when it is first entered"]
        if (change := make_room(levels)) is not None:
            self.notes.append(f"torch.compile: {change}, so that each level has the room that the model had")
        return None

    def level(self, want: int, top: int) -> int:
        """Return the level that is wanted, or where it would not pay to compile it, the next that is."""
        failed = next((d.failed for d in self._doorways if d.failed), None)
        if failed is not None:
            raise RuntimeError(f"a lower level could not be compiled: {failed}")
        return self._times.level(want, self._costs, self.left)

    def began(self, level: int) -> None:
        """Note at which level the step that begins is made."""
        below = len(self._costs) - 1 - level
        self._times.began(below)
        if any(doorway.used for doorway in self._doorways):
            # It is the wrapper that is called: nothing is left to be traced.
            for handle in self._beside:
                handle.remove()
            self._beside.clear()
            self._callers = tuple(caller for caller in self._callers if is_compiled(caller))
        for doorway in self._doorways:
            doorway.lowered = below > 0

    def stepped(self) -> None:
        """Note that the step has ended."""
        self._times.stepped()

    def warm(self, windows: WindowSet, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run every level once, forward and backward."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        gradients = [(p, p.grad) for p in parameters]
        try:
            for level in range(windows.top + 1):
                windows.apply(level)
                output = Run(self.outer, Call(args, kwargs))(training=True, dropout=True)
                sums = [t.sum() for t in tensors_in(output) if t.requires_grad]
                torch.autograd.grad(sums, parameters, allow_unused=True)
                windows.restore()
                self._times.warmed(windows.top - level)
        finally:
            windows.restore()
            for parameter, gradient in gradients:
                parameter.grad = gradient

    def _compiled_calls(self) -> Iterator[Any]:
        for module in (m for caller in self._callers for m in caller.modules() if is_compiled(m)):
            call = vars(module).get(IN_PLACE) or module.forward
            yield call.inside if isinstance(call, Doorway) else call

    def close(self) -> None:
        """Take the doorways off."""
        for doorway in self._doorways:
            doorway.remove()


class _Untraced(Hook):
    """Calls nothing while its module is traced, as a wrapper's that is used beside it."""

    def __call__(self, *args: Any) -> None:
        """Call the target."""
        if not torch.compiler.is_compiling():
            super().__call__(*args)


def make_room(levels: int) -> str | None:
    """Let dynamo keep as many graphs at each level as it would have kept without levels; say how.

    At its limit (8) it goes on eagerly, or raises under `fullgraph=True`; training needs a graph for the
    first batch size and one for all others, and evaluation as much again. After compiling, the limit of one
    model cannot be set any more, so it is the process's. It stays when the agent goes: so do the graphs.
    """
    config: Any = sys.modules["torch._dynamo"].config if is_loaded() else None
    # Its name until torch 2.6, and an alias since.
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    limit = getattr(config, name, None)
    if limit is None:
        return None
    before = _room.get(limit, limit)  # not again for each agent
    raised = max(limit, before * levels)
    _room[raised] = before
    setattr(config, name, raised)
    return f"torch._dynamo.config.{name} is {raised} instead of {before}"


_room: dict[int, int] = {}


def elsewhere(model: nn.Module) -> Compiled | None:
    """Return an engine that looks for calls of all that torch.compile has made of a model, and of itself.

    A walk through all objects: 0.1 s where transformers is loaded, with 460,000 of them.
    """
    inner = original(model)
    wrappers = [m for m in _modules() if m is not inner and original(m) is inner]
    engine = engine_of(model, [*wrappers, inner])
    return engine if isinstance(engine, Compiled) else None


def compiled_root(trained: Collection[int]) -> nn.Module | None:
    """Return the compiled module that holds all parameters with these ids, the outermost if several do."""
    found = [m for m in _modules() if is_compiled(m) and {id(p) for p in m.parameters()}.issuperset(trained)]
    return max(found, key=lambda module: sum(1 for _ in module.modules()), default=None)


def _modules() -> list[nn.Module]:
    # By type: `isinstance` would ask lazily imported modules and proxies for their class.
    return [o for o in gc.get_objects() if issubclass(type(o), nn.Module)] if is_loaded() else []


def _own_limit(call: Any) -> int | None:
    """Return the limit that `torch.compile(..., recompile_limit=)` was given, where torch has that."""
    contents = (cell.cell_contents for cell in getattr(call, "__closure__", None) or ())
    return next((c._recompile_limit for c in contents if hasattr(c, "_recompile_limit")), None)
