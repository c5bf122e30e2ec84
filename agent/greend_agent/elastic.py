"""Modules made to shrink, for models that are designed for it. Without an agent they are ordinary modules.

A module of your own takes part by one method, which says what each of its smaller sizes keeps::

    class Codes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.codes = nn.Parameter(torch.randn(64, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x @ self.codes.T).relu() @ self.codes

        def greend_dials(self, name: str) -> list[Dial]:
            kept = (Cut(self.codes, 0, slice(0, 32)),)
            half = Turned(cuts=kept, blinds=kept)
            return [Steps("codes", name, parts=(self,), readers=(self,), positions=(half,), shares=(0.5,))]

`forward` is written against the shapes that its parameters have, and never asks for a level: between two
micro-batches, or a forward and its recomputation, nothing changes. The output keeps its shape. What a smaller
size computes is what the whole module computes with all that is cut off (`blinds`) at zero, and the agent
proves it at the outputs of the `readers` before it uses it. Without readers nothing is compared: then it is
for you to know that the smaller size is good for training, and only that the model runs with it is tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from greend_agent.dial import Cut, Dial, Setting, Turned
from greend_agent.knobs.kernel import SMALLEST, kernel
from greend_agent.knobs.steps import Steps

if TYPE_CHECKING:
    from greend_agent.plan.layers import Fitness

__all__ = ["Cut", "Dial", "DynamicConv2d", "DynamicLinear", "Elastic", "Setting", "Steps", "Turned", "find"]


@runtime_checkable
class Elastic(Protocol):
    """A module that says itself how it shrinks."""

    def greend_dials(self, name: str) -> Sequence[Dial]:
        """Return its dials; `name`: where in the model it is."""
        ...


class DynamicConv2d(nn.Conv2d):
    """A convolution with kernels of several sizes nested in one weight: the smaller ones are its centre.

    `kernel_sizes` are odd, from 3 on. The weight has the largest, and the padding goes with the size, so that
    at every size (N, in_channels, H, W) becomes (N, out_channels, ceil(H / stride), ceil(W / stride)). The
    other arguments are those of `nn.Conv2d`. `state_dict`: weight and bias, as of an `nn.Conv2d`.

    Raises ValueError for sizes that cannot be nested.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_sizes: Sequence[int] = (3, 5, 7),
        stride: int | tuple[int, int] = 1,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        sizes = tuple(sorted(set(kernel_sizes)))
        if not sizes or sizes[0] < SMALLEST or any(size % 2 == 0 for size in sizes):
            raise ValueError(
                f"DynamicConv2d: kernel_sizes {tuple(kernel_sizes)}: sizes with a common centre are odd, "
                f"from {SMALLEST} on, such as (3, 5, 7)"
            )
        rows, columns = (dilation, dilation) if isinstance(dilation, int) else dilation
        padding = sizes[-1] // 2 * rows, sizes[-1] // 2 * columns
        super().__init__(
            in_channels, out_channels, sizes[-1], stride, padding, dilation, groups, bias, padding_mode,
            device, dtype,
        )  # fmt: skip
        self.kernel_sizes = sizes

    @property
    def level(self) -> int:
        """Which of its sizes is in force; the last is the whole kernel."""
        return self.kernel_sizes.index(self.weight.shape[-1])

    def greend_dials(self, name: str) -> list[Steps]:
        """Return the dial of its size."""
        return [kernel(self, name, self.kernel_sizes)] if len(self.kernel_sizes) > 1 else []

    def extra_repr(self) -> str:
        """Return what `repr` shows inside."""
        return f"{super().extra_repr()}, kernel_sizes={self.kernel_sizes}"  # type: ignore[no-untyped-call]


class DynamicLinear(nn.Linear):
    """A linear layer that computes the first of its outputs only, and gives zeros for the others.

    Its output keeps its shape, (..., out_features), so that it may write into what other layers read too: a
    residual stream, a concatenation, the input of a norm. A *hidden* width, between two linear layers with
    an element-wise function between them, needs nothing of the kind: of two plain `nn.Linear` the agent
    narrows both.

    `widths`: the numbers of outputs, by default the quarters of `out_features`, which is always one of them.
    `state_dict`: weight and bias, as of an `nn.Linear`.

    Raises ValueError for widths outside of 2 ... out_features.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        widths: Sequence[int] | None = None,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if widths is None:
            widths = [width for k in (1, 2, 3) if (width := out_features * k // 4) >= _LEAST_WIDTH]
        if any(not _LEAST_WIDTH <= width <= out_features for width in widths):
            raise ValueError(
                f"DynamicLinear: widths {tuple(widths)}: each must be from {_LEAST_WIDTH} to "
                f"out_features = {out_features}"
            )
        super().__init__(in_features, out_features, bias, device, dtype)
        self.widths = tuple(sorted({*widths, out_features}))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., out_features) for (..., in_features)."""
        output = super().forward(x)
        missing = self.out_features - output.shape[-1]
        return nn.functional.pad(output, (0, missing)) if missing else output

    @property
    def level(self) -> int:
        """Which of its widths is in force; the last is all of its outputs."""
        return self.widths.index(self.weight.shape[0])

    def greend_dials(self, name: str) -> list[Steps]:
        """Return the dial of its width."""
        tensors = [self.weight] if self.bias is None else [self.weight, self.bias]
        cuts = [tuple(Cut(tensor, 0, slice(0, width)) for tensor in tensors) for width in self.widths[:-1]]
        positions = tuple(Turned(cuts=kept, blinds=kept) for kept in cuts)
        shares = tuple(width / self.out_features for width in self.widths[:-1])
        return [Steps("linear", name, (self,), (self,), positions, shares)] if positions else []

    def extra_repr(self) -> str:
        """Return what `repr` shows inside."""
        return f"{super().extra_repr()}, widths={self.widths}"


_LEAST_WIDTH = 2
"""The state of a bias of one entry could not be told from the optimizer's step counter."""


def find(model: nn.Module, fit: Fitness) -> tuple[list[Dial], list[tuple[str, str]]]:
    """Return the dials of the modules that say how they shrink, and those that cannot with the reason."""
    found: list[Dial] = []
    rejected: list[tuple[str, str]] = []
    for name, module in model.named_modules():
        if not isinstance(module, Elastic):
            continue
        try:
            dials = list(module.greend_dials(name or "model"))
        except Exception as error:
            rejected.append((name or "model", f"its greend_dials raised {type(error).__name__}: {error}"))
            continue
        for dial in dials:
            tensors = {id(c.tensor): c.tensor for n in range(1, dial.full) for c in dial.turned(n).cuts}
            reasons = (_unfit(tensor, fit) for tensor in tensors.values())
            reason = next((reason for reason in reasons if reason is not None), None)
            if reason is None:
                found.append(dial)
            else:
                rejected.append((dial.name, reason))
    return found, rejected


def _unfit(tensor: torch.Tensor, fit: Fitness) -> str | None:
    """Why a tensor cannot be windowed; None when it can."""
    if isinstance(tensor, nn.Parameter):
        reason = fit.of_param(tensor)
        return None if reason is None else f"a weight that it cuts {reason}"
    return "what it cuts is computed, not a parameter or a buffer" if tensor.requires_grad else None
