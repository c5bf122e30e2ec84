"""A rank's parts of parameters and of the optimizer's state, and what each level sees of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.optim import Optimizer

from greend_agent.windows.ladder import Index
from greend_agent.windows.moments import Arrears


class Shard:
    """This rank's part of a parameter, and what each level sees of it."""

    def __init__(self, param: Any, indices: Sequence[Index | None]) -> None:
        self.param = param
        self.indices = [None if i is None else self._here(i) for i in indices]

    @property
    def local(self) -> torch.Tensor:
        """The part itself, each time another tensor on its storage."""
        with torch.no_grad():
            local: torch.Tensor = self.param.to_local()
        return local

    def index(self, level: int) -> Index | None:
        """Return what a level sees of the shard."""
        return self.indices[level]

    def tensors(self, optimizer: Optimizer) -> Iterator[torch.Tensor]:
        """Yield this rank's parts of the parameter and of the optimizer's state of it."""
        local = self.local
        yield local
        yield from (v for v in self.state(optimizer).values() if _is(v, local))

    def state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return this rank's parts of the optimizer's state."""
        state = optimizer.state.get(self.param) or {}
        with torch.no_grad():
            return {k: v.to_local() if hasattr(v, "to_local") else v for k, v in state.items()}

    def _here(self, index: Index) -> Index:
        found = list(index)
        for axis, placement in enumerate(self.param.placements):
            if placement.is_shard():
                dim, mesh = placement.dim, self.param.device_mesh
                size = -(-self.param.shape[dim] // mesh.size(axis))  # as torch.chunk does
                start = min(mesh.get_local_rank(axis) * size, self.param.shape[dim])
                found[dim] = _within(index[dim], start, self.local.shape[dim])
        return tuple(found)


def _within(kept: slice | torch.Tensor, start: int, size: int) -> slice | torch.Tensor:
    if isinstance(kept, torch.Tensor):
        here = kept - start
        return here[(here >= 0) & (here < size)]
    first, last = kept.start or 0, kept.stop
    return slice(min(max(first - start, 0), size), min(max(last - start, 0), size))


def _is(value: Any, like: torch.Tensor) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape == like.shape


class LocalState:
    """What `Arrears` asks of an optimizer, answered with this rank's parts."""

    def __init__(self, optimizer: Optimizer, shards: Sequence[Shard]) -> None:
        local = {id(shard.param): shard.local for shard in shards}
        self.tensors = [(local[id(shard.param)], shard.indices) for shard in shards]
        self.state = {local[id(shard.param)]: shard.state(optimizer) for shard in shards}
        self.param_groups = [
            {**group, "params": [local[id(p)] for p in group["params"] if id(p) in local]}
            for group in optimizer.param_groups
        ]


class ShardedArrears(Arrears):
    """A mean is one of all ranks' parts: those that a level sees may all lie in another rank's shard."""

    def mean(self, moment: torch.Tensor, index: Index | None) -> torch.Tensor:
        """Return the mean of what an index sees of a moment, on all ranks together."""
        seen = moment if index is None else moment[index]
        both = torch.stack([seen.sum(), seen.new_tensor(float(seen.numel()))])
        dist.all_reduce(both)
        return both[0] / both[1]
