"""The number of residual blocks: some are skipped, the least influential first.

A block may be skipped when with all its weights at zero it is the identity, to the last bit: the model
without it is then the model with those weights at zero, as a narrowed model is one with units at zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from greend_agent.dial import Cut, Setting, Turned
from greend_agent.knobs.residual import Visit, candidates, identity, not_identity, observe

if TYPE_CHECKING:
    from greend_agent.plan.probe import Run

ENOUGH = 8
"""With fewer blocks the same saving is better taken from the width: at equal FLOPs of a 4-block language
model, skipping blocks gave 2.84 bits per byte and narrowing them 2.66."""
LEAST = 4
"""With fewer there are no two blocks between the first and the last."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A block that may be skipped, and what then takes the place of its forward."""

    module: nn.Module
    identity: Callable[..., Any]
    parts: frozenset[nn.Module]
    """The block and all modules inside."""


@dataclass(frozen=True, slots=True, eq=False)
class Depth:
    """The dial of all blocks that may be skipped; at most half of them are at once."""

    name: str
    blocks: tuple[Block, ...]
    """In the order in which they are skipped."""
    knob: str = "depth"

    @property
    def full(self) -> int:
        """How many blocks there are."""
        return len(self.blocks)

    @property
    def readers(self) -> tuple[nn.Module, ...]:
        """The blocks themselves: what comes out of one that is skipped."""
        return tuple(block.module for block in self._skipped(self._least))

    @property
    def parts(self) -> frozenset[nn.Module]:
        """The blocks and all modules inside."""
        return frozenset().union(*(block.parts for block in self.blocks))

    def turned(self, count: int) -> Turned:
        """Return what is to be done to skip all but `count` blocks."""
        skipped = self._skipped(count)
        params = tuple(dict.fromkeys(p for block in skipped for p in block.module.parameters()))
        return Turned(
            settings=tuple(Setting(block.module, "forward", block.identity) for block in skipped),
            blinds=tuple(Cut(p, 0, slice(0, 0)) for p in params if p.dim()),
            idle=params,
        )

    def share(self, count: int, part: nn.Module) -> float:
        """Return how much of the work of a module inside a block remains: all or nothing."""
        return 0.0 if any(part in block.parts for block in self._skipped(count)) else 1.0

    def count(self, fraction: float, levels: int) -> int:
        """Return the nearest number of blocks, at least half of them."""
        return max(self._least, round(self.full * fraction))

    @property
    def _least(self) -> int:
        return self.full - self.full // 2

    def _skipped(self, count: int) -> tuple[Block, ...]:
        return self.blocks[: self.full - count]


def find(
    model: nn.Module,
    run: Run,
    trained: Collection[nn.Parameter] | None = None,
    *,
    enough: int = ENOUGH,
) -> tuple[list[Depth], list[tuple[str, str]]]:
    """Return the dial of the blocks that may be skipped, and the others with the reason.

    Two forwards in eval mode. No dial when there are not `enough` such blocks; `run` as `probe.undisturbed`
    lends it, `trained`: what the optimizer steps; None: all.
    """
    names = candidates(model)
    if len(names) < enough:
        return [], []
    visits = observe(run, names)
    fit = _Fitness(model, trained)
    for visit in visits:
        visit.reason = fit.reason(visit.module) if visit.reason is None else visit.reason
    reasons = not_identity(run, [visit for visit in visits if visit.reason is None])
    for visit in visits:
        visit.reason = reasons.get(visit.module, visit.reason)
    fine = _innermost([visit for visit in visits if visit.reason is None])
    inside = {part for visit in fine for part in visit.module.modules()}
    rejected = [
        (names[visit.module], f"cannot be skipped: {visit.reason}")
        for visit in visits
        if visit.reason and inside.isdisjoint(visit.module.modules())
    ]
    if not fine:
        return [], rejected
    name = f"{names[fine[0].module]} ... {names[fine[-1].module]}"
    if len(fine) < enough:
        reason = f"only {len(fine)} blocks can be skipped; from {enough} on that is worth while"
        return [], [*rejected, (name, reason)]
    blocks = tuple(Block(v.module, identity(v), frozenset(v.module.modules())) for v in _order(fine))
    return [Depth(name, blocks)], rejected


def _innermost(visits: list[Visit]) -> list[Visit]:
    fine = {visit.module for visit in visits}
    return [v for v in visits if not any(part in fine for part in v.module.modules() if part is not v.module)]


def _order(visits: list[Visit]) -> list[Visit]:
    """The least influential first; the first and the last, which translate, only when all others are."""
    ends = visits[0], visits[-1]
    return sorted(visits, key=lambda visit: (visit in ends, visit.influence))


class _Fitness:
    """Which blocks can be skipped at all, whatever they compute."""

    def __init__(self, model: nn.Module, trained: Collection[nn.Parameter] | None) -> None:
        self._references = _references(model)
        self._trained = None if trained is None else {id(p) for p in trained}

    def reason(self, block: nn.Module) -> str | None:
        """Why a block cannot; None when it can."""
        if "forward" in vars(block):
            return "its forward has been replaced"
        if isinstance(block, torch.jit.ScriptModule):
            return "TorchScript: its graph is fixed"
        if any(self._references[part] != times for part, times in _references(block).items()):
            return "it shares a layer or a weight with what lies outside of it"
        if self._trained is not None and self._trained.isdisjoint(id(p) for p in block.parameters()):
            return "none of its weights is trained by the optimizer"
        return None


def _references(module: nn.Module) -> Counter[int]:
    """Return how often each layer and each parameter inside a module is filed somewhere inside it."""
    return Counter(
        id(part)
        for m in module.modules()
        for part in (*m._modules.values(), *m._parameters.values())
        if part is not None
    )
