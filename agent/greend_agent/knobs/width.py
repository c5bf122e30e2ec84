"""A hidden width: its first units are kept, in whatever makes it, passes it on, and reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from greend_agent.dial import Cut, Kept, Setting, Turned
from greend_agent.knobs.padding import Padded, Selected

GEMM_MULTIPLE = 8
"""Matrix kernels are fastest at multiples of 8."""


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """A tensor that has the width along one dimension, in one segment or several.

    Each segment holds all units in a row; `units` says how many entries a unit has in each. A fused
    projection of 4 heads of 16 to query, key and value is one of three segments, (16, 16, 16).
    """

    tensor: torch.Tensor
    dim: int
    units: tuple[int, ...] = (1,)

    def kept(self, count: int, full: int) -> Kept:
        """Return the entries of the first `count` units of `full`."""
        if len(self.units) == 1:
            return slice(0, count * self.units[0])
        parts, start = [], 0
        for unit in self.units:
            parts.append(torch.arange(start, start + count * unit, device=self.tensor.device))
            start += full * unit
        return torch.cat(parts)


@dataclass(frozen=True, slots=True)
class Scaled:
    """An attribute that counts units, or entries of them, and has to follow."""

    owner: Any
    name: str
    unit: int


@dataclass(frozen=True, slots=True, eq=False)
class Width:
    """The dial of one hidden width."""

    knob: str
    name: str
    full: int
    makes: tuple[Side, ...]
    """Weights, biases and statistics of what makes the width or passes it on."""
    reads: tuple[Side, ...]
    """Weights of what reads it; the units that are left out can be left out of their sums."""
    readers: tuple[nn.Module, ...]
    scaled: tuple[Scaled, ...] = ()
    parts: frozenset[nn.Module] = frozenset()
    padded: tuple[tuple[nn.Module, tuple[int, ...]], ...] = ()
    """Layers whose output is to be filled up, each with the entries of a unit in its segments."""

    def turned(self, count: int) -> Turned:
        """Return what is to be done to keep the first `count` units."""
        makes = tuple(Cut(s.tensor, s.dim, s.kept(count, self.full)) for s in self.makes)
        reads = tuple(Cut(s.tensor, s.dim, s.kept(count, self.full)) for s in self.reads)
        settings = [Setting(s.owner, s.name, count * s.unit) for s in self.scaled]
        for module, units in self.padded:
            settings.append(Setting(module, "forward", Padded(module.forward, count, self.full, units)))
        for module, side in zip(self.readers, self.reads, strict=True) if self.padded else ():
            settings.append(Setting(module, "forward", Selected(module.forward, count * side.units[0])))
        return Turned(makes + reads, tuple(settings), blinds=reads)

    def share(self, count: int, part: nn.Module) -> float:
        """Return how much of the work of one of its parts remains."""
        return count / self.full

    def count(self, fraction: float, levels: int) -> int:
        """Return the nearest multiple: of the largest number that leaves each level a width of its own."""
        full, entries = self.full, min(s.units[0] for s in self.makes + self.reads)
        multiples = (m for m in (GEMM_MULTIPLE, 4, 2) if full % m == 0 and full // m >= levels)
        unit = 1 if entries >= GEMM_MULTIPLE else next(multiples, 1)
        # A tensor of one entry could not be told from a step counter.
        least = max(unit, 1 if entries > 1 else min(2, full))
        return min(full, max(least, unit * round(full * fraction / unit)))
