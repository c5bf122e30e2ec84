"""Hidden widths: what is made by some layers, passed on channel by channel, and read by others.

What is found here is only a proposal; `prove` decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from greend_agent.knobs.width import Scaled, Side, Width
from greend_agent.plan.graph import LayerCall, Trace, Walk
from greend_agent.plan.layers import Fitness, Layer

Rejected = tuple[str, str]


class Names:
    """What layers are called in their model."""

    def __init__(self, model: nn.Module) -> None:
        self._names = {module: name or "model" for name, module in model.named_modules()}
        self._order = {module: place for place, module in enumerate(self._names)}

    def sorted(self, layers: Iterable[Layer]) -> list[Layer]:
        """Return layers in the order in which the model has them."""
        return sorted(layers, key=lambda layer: self._order[layer.module])

    def of(self, makers: Iterable[Layer], readers: Iterable[Layer]) -> str:
        """Return the name of a width."""
        sides = [[self._names[layer.module] for layer in self.sorted(side)] for side in (makers, readers)]
        return " -> ".join(" * ".join(dict.fromkeys(side)) for side in sides if side)


@dataclass(slots=True)
class _Group:
    producers: frozenset[Layer]
    passes: frozenset[Layer]
    readers: list[Layer]
    width: int


def find_widths(
    seen: Trace, walk: Walk, fit: Fitness, names: Names
) -> tuple[list[Width], list[Rejected], list[LayerCall]]:
    """Return hidden widths to be proven, what cannot be one with the reason, and whose input was blocked."""
    groups: list[_Group] = []
    rejected: list[Rejected] = []
    blocked: list[LayerCall] = []
    for call in seen.calls:
        if call.layer.passes or call.input_node is None:
            continue
        source = walk.source(call.input_node)
        reason = source.blocked
        if reason is not None:
            blocked.append(call)
        elif source.producers:
            everything = [*source.producers, *source.passes, call.layer]
            width = min(layer.out_width or layer.in_width for layer in source.producers)
            width = min(width, call.layer.in_width)
            reason = fit.reason(layer.module for layer in everything) or _misfit(everything, call, width)
            reason = reason or walk.elsewhere(source.producers)
            if reason is None:
                groups.append(_Group(source.producers, source.passes, [call.layer], width))
        if reason is not None:
            rejected.append((names.of(source.producers, [call.layer]), reason))
    widths = []
    for group in _merged(groups):
        widths.append(_width(group, names))
    return widths, list(dict.fromkeys(rejected)), blocked


def _misfit(layers: Sequence[Layer], call: LayerCall, width: int) -> str | None:
    for layer in layers:
        size = call.layer.in_width if layer is call.layer else layer.out_width
        if size % width:
            return "its input is only a part of what makes it, or several in a row"
    return None


def _merged(groups: Sequence[_Group]) -> list[_Group]:
    """Join what shares a layer: two heads that read one hidden width narrow together."""
    merged: list[_Group] = []
    for group in groups:
        touching = [one for one in merged if (one.producers | one.passes) & (group.producers | group.passes)]
        for one in touching:
            merged.remove(one)
            group = _Group(
                group.producers | one.producers,
                group.passes | one.passes,
                [*one.readers, *group.readers],
                min(group.width, one.width),
            )
        merged.append(group)
    return merged


def _width(group: _Group, names: Names) -> Width:
    # Channels of one group of a group norm stay together.
    unit = math.lcm(*(layer.unit for layer in group.passes))
    if group.width % unit:
        unit = group.width
    makes: list[Side] = []
    scaled: list[Scaled] = []
    for layer in [*names.sorted(group.producers), *names.sorted(group.passes)]:
        segments = layer.out_width // group.width
        makes += [Side(tensor, dim, (unit,) * segments) for tensor, dim in layer.makes]
        scaled += [Scaled(layer.module, name, unit * segments // layer.unit) for name in layer.counters]
    reads = [
        Side(tensor, dim, (unit * layer.in_width // group.width,))
        for layer in group.readers
        for tensor, dim in layer.reads
    ]
    convolves = any(tensor.dim() > 2 for layer in group.readers for tensor, _ in layer.reads)
    return Width(
        "channels" if convolves or group.passes else "ffn",
        names.of(group.producers, group.readers),
        group.width // unit,
        tuple(makes),
        tuple(reads),
        tuple(dict.fromkeys(layer.module for layer in group.readers)),
        tuple(scaled),
        frozenset(layer.module for layer in (*group.producers, *group.passes, *group.readers)),
    )
