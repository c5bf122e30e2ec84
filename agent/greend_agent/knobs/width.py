"""The width of a hidden layer: its first units are kept, in whatever makes it and whatever reads it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from greend_agent.group import Group
from greend_agent.window import Index, Window


def windows(groups: Sequence[Group], counts: Sequence[Sequence[int]]) -> list[Window]:
    """Return the windows for groups whose hidden widths are given for each level, least first.

    A layer between two hidden layers is narrowed on both sides.
    """
    limits: dict[nn.Parameter, list[dict[int, int]]] = {}

    def narrow(param: object, dim: int, which: int) -> None:
        if isinstance(param, nn.Parameter):
            by_level = limits.setdefault(param, [{} for _ in counts])
            for level, widths in enumerate(counts):
                by_level[level][dim] = widths[which]

    for which, group in enumerate(groups):
        for producer in group.producers:
            narrow(producer.weight, 0, which)
            narrow(producer.bias, 0, which)
        for consumer in group.consumers:
            narrow(consumer.weight, 1, which)
    return [Window(p, tuple(_index(p, dims) for dims in by_level)) for p, by_level in limits.items()]


def _index(param: nn.Parameter, dims: dict[int, int]) -> Index | None:
    if all(width == param.shape[dim] for dim, width in dims.items()):
        return None
    return tuple(slice(0, dims.get(dim, param.shape[dim])) for dim in range(param.dim()))
