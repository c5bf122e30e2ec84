"""FSDP2 (`fully_shard`): parameters lie in shards, and what a level does not use is sliced off in forward.

A shard cannot be a window: which rows of a weight lie in it is FSDP's business, and it gathers whole ones.
So a lowered `nn.Linear` multiplies with slices of the gathered weight. The costs of that stay (a gradient as
large as the weight, and as much sent as at the top); what would be wrong is put right: momentum and decay
move weights that have no gradient, so in the optimizer's step the entries outside are kept as they were, in
the shards of weights and moments.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from greend_agent.engines.shards import LocalState, Shard, ShardedArrears
from greend_agent.engines.together import Alone, Together, lent
from greend_agent.knobs.around import Around
from greend_agent.plan import Call, Plan
from greend_agent.refusals import is_sharded
from greend_agent.windows.ladder import UNTOUCHED, Attribute, Index, Ladder

_FULL = -1


def refusal(model: nn.Module) -> str | None:
    """Say what about the shards is not known here; None when they are as `fully_shard` makes them."""
    named: Iterable[tuple[str, Any]] = model.named_parameters()
    for name, param in named:
        if not hasattr(param, "to_local"):
            continue
        shards = [p for p in param.placements if not p.is_replicate()]
        if any(type(p).__name__ != "Shard" for p in shards) or len(shards) > 1:
            return f"{name} is sharded in several ways at once ({param.placements})"
        if param.device_mesh.size() != dist.get_world_size():
            return f"{name} is sharded over some of the processes only"
    return None


class FSDP2(Together):
    """Slices in forward, and an optimizer's step that leaves alone what was sliced off."""

    _note = "FSDP: nn.Linear is sliced in forward, and as much is sent as at the top"

    def __init__(self, outer: nn.Module, optimizer: Optimizer) -> None:
        super().__init__(outer, dist.group.WORLD)
        self._optimizer = optimizer
        self._twins: dict[torch.Tensor, nn.Parameter] = {}
        self._ladder: Ladder | None = None
        self._shards: list[Shard] = []
        self._arrears = ShardedArrears(1)
        self._handles: list[Any] = []
        self._in_force = _FULL
        self._lame = False
        self._before: list[tuple[torch.Tensor, torch.Tensor, Index]] = []

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Return the arguments in the precision of the parameters, as it is with those that it is planned."""
        own = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)

        def cast(value: Any) -> Any:
            # FSDP has cast them for its half precision before any hook of ours sees them.
            half = isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)
            return value.to(own) if half else value

        return Call.of(tree_map(cast, args), tree_map(cast, kwargs))

    def share(self, call: Call | None) -> Call | None:
        """Return rank 0's call; None when there is a plan already, as nothing is left to be done with it."""
        return None if self._ladder is not None else super().share(call)

    @contextlib.contextmanager
    def planning(self, trained: Collection[nn.Parameter]) -> Iterator[Collection[nn.Parameter]]:
        """Inside, the model has whole parameters of its own, and gathers nothing: memory for all at once.

        Raises whatever gathering them raises.
        """
        for module in self.model.modules():
            if is_sharded(module):
                module.reshard()  # type: ignore[operator]

        def twin(module: nn.Module, param: nn.Parameter) -> nn.Parameter:
            whole: Any = param
            with torch.no_grad():
                whole = whole.full_tensor() if hasattr(whole, "full_tensor") else whole.detach().clone()
            kind = nn.Parameter if type(module).forward is nn.Linear.forward else NotLinear
            return kind(whole, requires_grad=param.requires_grad)

        with lent(self.model, twin) as twins, _without_gathering(self.model), Alone():  # type: ignore[no-untyped-call]
            self._twins = {other: param for param, other in twins.items()}
            yield [twins[p] for p in trained if p in twins]

    def ladder(self, plan: Plan) -> Ladder:
        """Return what the levels do, with slices in the place of windows."""
        if self._ladder is None:
            self._ladder = self._sliced(plan.ladder)
            self._twins = {}
        return self._ladder

    def _sliced(self, ladder: Ladder) -> Ladder:
        places = {p: (m, name) for m in self.model.modules() for name, p in m._parameters.items()}
        cuts: dict[nn.Module, list[dict[str, Index]]] = {}
        for window in ladder.windows:
            param = self._twins.get(window.param)
            if param is None:
                raise RuntimeError("under FSDP, only weights of nn.Linear can be narrowed")
            module, name = places[param]
            self._shards.append(Shard(param, window.indices))
            for level, index in enumerate(window.indices):
                if index is not None:
                    cuts.setdefault(module, [{} for _ in range(ladder.levels)])[level][name] = index
        slices = [
            Attribute(m, "forward", tuple(Sliced(m, cut) if cut else UNTOUCHED for cut in levels))
            for m, levels in cuts.items()
        ]
        idle = tuple(frozenset(self._twins.get(p, p) for p in level) for level in ladder.idle)
        attributes = (*map(_without_views, ladder.attributes), *slices)
        self._arrears = ShardedArrears(ladder.levels)
        return dataclasses.replace(ladder, windows=(), attributes=attributes, idle=idle)

    def agree(self, plan: Plan) -> str | None:
        """Compare plans, and look after the optimizer's steps from now on."""
        reason = super().agree(plan)
        if reason is None:
            self._handles = [
                self._optimizer.register_step_pre_hook(self._before_step),
                self._optimizer.register_step_post_hook(self._after_step),
            ]
        return reason

    def vetoed(self) -> bool:
        """Whether what is sliced off could not be kept in the optimizer's step.

        So with a closure, as the level is chosen when the step has begun.
        """
        return self._lame

    def level(self, want: int, top: int) -> int:
        """Return what was agreed, with the moments of what it opens up to date."""
        if self._voted:
            return self._top  # alone, with nobody to find the means with
        level = super().level(want, top)
        self._settle(level)
        return level

    def lowered(self, level: int) -> None:
        """Note what is sliced."""
        self._in_force = level

    def restored(self) -> None:
        """Note that nothing is."""
        self._in_force = _FULL

    def close(self) -> None:
        """Take the hooks off the optimizer, and bring its moments up to date."""
        for handle in self._handles:
            handle.remove()
        if self._agreed:
            self._settle(self._top)
        self._handles = []
        super().close()

    # --- the optimizer's step ---

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._lame |= len(args) > 1 or kwargs.get("closure") is not None
        self._arrears.stepped(self._in_force if self._in_force != _FULL else self._top)
        self._before = []
        if self._in_force == _FULL:
            return
        try:
            with torch.no_grad():
                for shard in self._shards:
                    index = shard.index(self._in_force)
                    if index is not None:
                        self._before += [(t, t.clone(), index) for t in shard.tensors(optimizer)]
        except Exception:  # no memory for them: the step goes on, and no other is lowered
            self._lame = True

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        before, self._before = self._before, []
        with torch.no_grad():
            for tensor, whole, index in before:
                whole[index] = tensor[index]
                tensor.copy_(whole)

    def _settle(self, level: int) -> None:
        if self._shards and self._arrears.due(level):
            with torch.no_grad():
                local: Any = LocalState(self._optimizer, self._shards)
                self._arrears.settle(local, local.tensors, level)


class Sliced(Around):
    """The forward of a `nn.Linear` with parts of its weights."""

    def __init__(self, linear: nn.Module, cut: dict[str, Index]) -> None:
        super().__init__(linear.forward)
        self._linear, self._cut = linear, cut

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply with what is left."""
        return nn.functional.linear(x, *(self._part(name) for name in ("weight", "bias")))

    def _part(self, name: str) -> Any:
        whole = getattr(self._linear, name)
        return whole[self._cut[name]] if name in self._cut else whole


class NoView(Around):
    """A forward whose outputs are no views, such as an identity gives.

    FSDP gathers for the backward by what it hangs on a module's outputs, and that is lost when the model
    adds to a view in place.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the forward."""
        return tree_map(_apart, self.inner(*args, **kwargs))


def _apart(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) and value._is_view() else value


def _without_views(attribute: Attribute) -> Attribute:
    owner = attribute.owner
    if attribute.name != "forward" or not isinstance(owner, nn.Module) or not is_sharded(owner):
        return attribute
    values = tuple(v if v is UNTOUCHED else NoView(v) for v in attribute.values)
    return dataclasses.replace(attribute, values=values)


class NotLinear(nn.Parameter):
    """In the place of a parameter that is never narrowed here, and said to be that when it is looked at."""


@contextlib.contextmanager
def _without_gathering(model: nn.Module) -> Iterator[None]:
    """Inside, FSDP's own hooks are off the modules."""
    hooks = [d for m in model.modules() for d in (m._forward_pre_hooks, m._forward_hooks)]
    before = [(found, dict(found)) for found in hooks]
    try:
        for found, content in before:
            for number, hook in content.items():
                if "fsdp" in getattr(hook, "__module__", ""):
                    del found[number]
        yield
    finally:
        for found, content in before:
            found.clear()
            found.update(content)
