"""What can be turned down in a model, in whole units, and what that does to its tensors and attributes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from greend_agent.knobs.around import both
from greend_agent.windows.ladder import UNTOUCHED, Attribute, Index, Ladder, Window

Kept = slice | torch.Tensor
"""Entries along one dimension: the first ones, or those with the indices in a vector of int64."""


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """What remains of a parameter or buffer along one of its dimensions."""

    tensor: torch.Tensor
    dim: int
    kept: Kept


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """The value of an attribute while a dial is turned down."""

    owner: Any
    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class Turned:
    """What a dial does at one position."""

    cuts: tuple[Cut, ...] = ()
    settings: tuple[Setting, ...] = ()
    blinds: tuple[Cut, ...] = ()
    """The proof's reference: in the full model all that is *not* kept of these tensors is zero."""
    idle: tuple[nn.Parameter, ...] = ()
    """Parameters that have no part in the step at all, and must not be moved by the optimizer."""


class Dial(Protocol):
    """One reversible way for a model to use less: `full` units at the top, fewer below."""

    @property
    def knob(self) -> str:
        """Which kind it is: ffn, heads, channels, kernel, depth and so on."""

    @property
    def name(self) -> str:
        """Where in the model it is."""

    @property
    def full(self) -> int:
        """How many units the untouched model has."""

    @property
    def parts(self) -> Collection[nn.Module]:
        """The modules whose work falls with it."""

    @property
    def readers(self) -> tuple[nn.Module, ...]:
        """The modules at whose outputs the proof compares."""

    def turned(self, count: int) -> Turned:
        """Return what is to be done to have `count` units, 1 <= count < full."""

    def count(self, fraction: float, levels: int) -> int:
        """Return the number of units that comes nearest to a fraction of the dial, 0 < fraction <= 1.

        Never falls with the fraction; `full` at 1. `levels`: how many positions the ladder wants of it.
        """

    def share(self, count: int, part: nn.Module) -> float:
        """Return how much of the work of one of its parts remains at a position."""


def spread(dials: Sequence[Dial], counts: Sequence[Sequence[int]]) -> Ladder:
    """Return what the levels do, given how far each turns each dial."""
    kept: dict[torch.Tensor, list[dict[int, Kept]]] = {}
    values: dict[tuple[int, str], list[Any]] = {}
    owners: dict[tuple[int, str], Any] = {}
    idle: dict[int, set[nn.Parameter]] = defaultdict(set)
    for level, positions in enumerate(counts):
        for dial, count in zip(dials, positions, strict=True):
            if count == dial.full:
                continue
            turned = dial.turned(count)
            for cut in turned.cuts:
                kept.setdefault(cut.tensor, [{} for _ in counts])[level][cut.dim] = cut.kept
            for setting in turned.settings:
                key = id(setting.owner), setting.name
                owners[key] = setting.owner
                by_level = values.setdefault(key, [UNTOUCHED] * len(counts))
                by_level[level] = both(by_level[level], setting.value)
            idle[level] |= set(turned.idle)
    return Ladder(
        len(counts),
        tuple(Window(t, tuple(_index(t, dims) for dims in levels)) for t, levels in kept.items()),
        tuple(Attribute(owners[key], key[1], tuple(by_level)) for key, by_level in values.items()),
        tuple(frozenset(idle[level]) for level in range(len(counts))),
    )


def _index(tensor: torch.Tensor, dims: dict[int, Kept]) -> Index | None:
    if not dims:
        return None
    return tuple(dims.get(dim, slice(0, tensor.shape[dim])) for dim in range(tensor.dim()))
