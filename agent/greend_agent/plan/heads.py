"""Attention heads: a unit is what one key-value head serves, in query, key, value and output projection.

How a projection lays its heads out cannot be read off its shape alone, so that several layouts are
proposed, the usual one first; `prove` decides which, if any, is the model's.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from torch import nn

from greend_agent.knobs.width import Scaled, Side, Width
from greend_agent.plan.graph import LayerCall, Walk
from greend_agent.plan.layers import Fitness, Layer
from greend_agent.plan.widths import Names, Rejected

Layout = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """An attention, and the layouts that its heads may have."""

    name: str
    kind: object
    """Equal for attentions of the same make: what holds for one will hold for the others."""
    layouts: tuple[Width, ...]


def find_heads(
    model: nn.Module, calls: Sequence[LayerCall], walk: Walk, fit: Fitness, names: Names
) -> tuple[list[Attention], list[Rejected]]:
    """Return the attentions among the calls whose input is not made unit by unit."""
    found: list[Attention] = []
    rejected: list[Rejected] = []
    paths = {module: path for path, module in model.named_modules()}
    for call in calls:
        attended = walk.attended(call.input_node)
        if attended is None or not attended[0]:
            continue
        producers, sizes = names.sorted(attended[0]), attended[1]
        name = names.of(producers, [call.layer])
        reason = fit.reason([*(layer.module for layer in producers), call.layer.module])
        module = model.get_submodule(
            os.path.commonpath([paths[layer.module].replace(".", "/") for layer in (*producers, call.layer)])
            .replace("/", ".")
        )  # fmt: skip
        layouts = () if reason else tuple(_layouts(module, producers, call.layer, sizes, name))
        if layouts:
            shapes = tuple(tuple(layer.makes[0][0].shape) for layer in (*producers, call.layer))
            found.append(Attention(name, (type(module), shapes), layouts))
        else:
            rejected.append((name, reason or "an attention whose heads could not be told apart"))
    return found, rejected


def _layouts(
    module: nn.Module, producers: Sequence[Layer], output: Layer, sizes: set[int], name: str
) -> Iterator[Width]:
    layers = {layer.module for layer in (*producers, output)}
    for size in sorted(sizes):
        if size < 2 or output.in_width % size or output.in_width == size:
            continue
        for heads, layouts in _splits([layer.out_width for layer in producers], output.in_width, size):
            both = list(zip(producers, layouts, strict=True))
            whole = Width(
                "heads",
                name,
                heads,
                tuple(Side(tensor, dim, units) for layer, units in both for tensor, dim in layer.makes),
                tuple(Side(tensor, dim, (output.in_width // heads,)) for tensor, dim in output.reads),
                (output.module,),
                tuple(
                    Scaled(layer.module, counter, layer.out_width // heads)
                    for layer in producers
                    for counter in layer.counters
                ),
                frozenset(module.modules()),
            )
            widths = {output.in_width, *(layer.out_width for layer in producers)}
            for scaled in _counting(module, layers, {output.in_width // size, heads}, widths, heads):
                yield replace(whole, scaled=whole.scaled + scaled)
            if all(layer.makes[0][0].dim() == 2 for layer in producers):
                padded = tuple((layer.module, units) for layer, units in both)
                yield replace(whole, padded=padded, parts=frozenset(layers))


def _splits(widths: Sequence[int], out: int, size: int) -> Iterator[tuple[int, list[Layout]]]:
    """Yield numbers of units and, for each projection, the entries that a unit has in its segments.

    `out`: entries that the output projection reads; `size`: entries of one head.
    """
    heads = out // size
    if len(widths) == 1:
        (width,) = widths
        key_heads = (width - out) // (2 * size)
        if key_heads > 0 and width == out + 2 * key_heads * size and heads % key_heads == 0:
            group = heads // key_heads * size
            yield key_heads, [(group, size, size)]
            yield key_heads, [(group + 2 * size,)]
        return
    units = min(widths) // size
    if units and heads % units == 0 and all(width % (units * size) == 0 for width in widths):
        plain: list[list[Layout]] = []
        for width in widths:
            unit = width // units
            fused = [(unit // 2, unit // 2)] if width == 2 * out and len(widths) == 2 else []
            plain.append([*fused, (unit,)])
        for chosen in product(*plain):
            yield units, list(chosen)


def _counting(
    module: nn.Module, layers: set[nn.Module], heads: set[int], widths: set[int], units: int
) -> Iterator[tuple[Scaled, ...]]:
    """Yield which attributes of the attention may have to follow: none, those of widths, of heads, all."""

    def saying(numbers: set[int]) -> tuple[Scaled, ...]:
        return tuple(
            Scaled(owner, name, value // units)
            for owner in module.modules()
            if owner not in layers
            for name, value in vars(owner).items()
            if type(value) is int and value in numbers and value % units == 0
        )

    both = saying(widths), saying(heads - {1})
    yield from dict.fromkeys([(), *both, both[0] + both[1]])
