"""The size of a convolution's kernel: one master kernel, of which a level sees the centre.

Cropping a ring and padding as much less leaves the size of the output as it is, at any stride and dilation,
and is exactly the whole kernel with that ring at zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from greend_agent.dial import Cut, Setting, Turned
from greend_agent.knobs.steps import Steps

if TYPE_CHECKING:
    from greend_agent.plan.layers import Fitness

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d

SMALLEST = 3
"""A kernel of 1 would no longer see anything of what lies around."""

_PADS = "_reversed_padding_repeated_twice"
"""torch's own: by how much the input is padded when that is not with zeros. The proof would see it change."""


def find(model: nn.Module, fit: Fitness) -> tuple[list[Steps], list[tuple[str, str]]]:
    """Return a dial for each kernel above 3 that can be cropped, and the others with the reason.

    `fit` says which layers can be windowed at all.
    """
    found: list[Steps] = []
    rejected: list[tuple[str, str]] = []
    for name, conv in model.named_modules():
        if not isinstance(conv, Conv) or max(conv.kernel_size) <= SMALLEST:
            continue
        if hasattr(conv, "greend_dials"):
            continue  # it says itself how it shrinks
        reason = _unfit(conv) or fit.reason([conv])
        if reason is None:
            found.append(kernel(conv, name or "model"))
        else:
            rejected.append((name or "model", reason))
    return found, rejected


def kernel(conv: Conv, name: str, sizes: Sequence[int] | None = None) -> Steps:
    """Return the dial of a convolution whose kernel is odd and padded.

    Its positions are the sizes (odd, rising, the last the whole kernel), by default 3, 5, ..., k. A
    dimension in which the kernel is smaller than a size keeps what it has there: 3x7 becomes 3x5, then 3x3.
    """
    whole = conv.kernel_size
    sizes = sizes or range(SMALLEST, max(whole) + 1, 2)
    lower = [tuple(min(size, k) for k in whole) for size in sizes[:-1]]
    return Steps(
        "kernel",
        name,
        parts=(conv,),
        readers=(conv,),
        positions=tuple(_cropped(conv, size) for size in lower),
        shares=tuple(math.prod(size) / math.prod(whole) for size in lower),
    )


def _cropped(conv: Conv, sizes: Sequence[int]) -> Turned:
    rings = [(k - size) // 2 for k, size in zip(conv.kernel_size, sizes, strict=True)]
    cuts = tuple(
        Cut(conv.weight, dim, slice(ring, ring + size))
        for dim, (ring, size) in enumerate(zip(rings, sizes, strict=True), start=2)
        if ring
    )
    padding = tuple(p - ring * d for p, ring, d in zip(_padding(conv), rings, conv.dilation, strict=True))
    settings = [Setting(conv, "kernel_size", tuple(sizes))]
    if not isinstance(conv.padding, str):
        settings.append(Setting(conv, "padding", padding))
    if conv.padding_mode != "zeros":
        twice = [p for p in reversed(padding) for _ in range(2)]
        settings.append(Setting(conv, _PADS, type(getattr(conv, _PADS))(twice)))
    return Turned(cuts, tuple(settings), blinds=cuts)


def _padding(conv: Conv) -> tuple[int, ...]:
    if conv.padding == "same":
        return tuple(k // 2 * d for k, d in zip(conv.kernel_size, conv.dilation, strict=True))
    return (0,) * len(conv.kernel_size) if isinstance(conv.padding, str) else conv.padding


def _unfit(conv: Conv) -> str | None:
    """Why a kernel cannot be cropped; None when it can."""
    if any(k % 2 == 0 for k in conv.kernel_size):
        return f"its kernel of {_by(conv.kernel_size)} is even, and has no centre"
    for k, padding, dilation in zip(conv.kernel_size, _padding(conv), conv.dilation, strict=True):
        if padding < (k - SMALLEST) // 2 * dilation:
            return f"padded by {_by(_padding(conv))} only, a smaller kernel would give a larger output"
    base = next(kind for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(conv, kind))
    if type(conv)._conv_forward is not base._conv_forward:
        return f"it is a {type(conv).__name__} with a convolution of its own"
    if conv.padding_mode != "zeros" and not isinstance(getattr(conv, _PADS, None), (list, tuple)):
        return f"how this torch pads with {conv.padding_mode} is not known"
    return None


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
