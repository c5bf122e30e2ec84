"""What each resource level does to a model: windows on tensors, values of attributes, parameters left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Index = tuple[slice | torch.Tensor, ...]
"""For each dimension the entries seen: a range, or in at most one dimension a vector of indices (int64)."""

UNTOUCHED = object()
"""The value of an attribute that a level leaves as it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One parameter or buffer and what each level sees of it, least first; None: all of it.

    The index of a level lies within the index of the level above.
    """

    param: torch.Tensor
    indices: tuple[Index | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Attribute:
    """An attribute of a module (or of the model's own objects) and its value at each level, least first."""

    owner: Any
    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Ladder:
    """What each level does to a model, least first; the top does nothing."""

    levels: int
    windows: tuple[Window, ...]
    attributes: tuple[Attribute, ...] = ()
    idle: tuple[frozenset[nn.Parameter], ...] = ()
    """For each level the parameters that have no part in its steps: without a gradient when it steps."""


Part = tuple[tuple[slice, ...], tuple[slice, ...]]
"""Where one block of a window lies in the whole tensor, and where in a copy of the window."""


def parts(index: Index) -> list[Part]:
    """Return the blocks of which a window consists: one, or one for each run of a vector of indices."""
    vectors = [(dim, entries) for dim, entries in enumerate(index) if isinstance(entries, torch.Tensor)]
    ranges = tuple(entries if isinstance(entries, slice) else slice(None) for entries in index)
    if not vectors:
        return [(ranges, (slice(None),) * len(index))]
    if len(vectors) > 1:
        raise ValueError(f"a window has a vector of indices in one dimension at most, not in {len(vectors)}")
    (dim, entries) = vectors[0]
    found, start = [], 0
    for first, length in _runs(entries.tolist()):
        whole, copy = list(ranges), [slice(None)] * len(index)
        whole[dim], copy[dim] = slice(first, first + length), slice(start, start + length)
        found.append((tuple(whole), tuple(copy)))
        start += length
    return found


def _runs(entries: list[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for entry in entries:
        if runs and entry == sum(runs[-1]):
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((entry, 1))
    return runs
