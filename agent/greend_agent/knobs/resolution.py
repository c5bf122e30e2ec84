"""Smaller images, where what comes out does not depend on their size.

So it is with convolutions that end in a pooling to a fixed size. Sides go down in multiples of the total
stride, so that no border is treated otherwise than in the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from greend_agent.dial import Dial, Setting, Turned
from greend_agent.knobs.around import Around
from greend_agent.plan.probe import Call, Run
from greend_agent.plan.trial import difference

LEAST = 1 / 4
"""No side is made smaller than this part of it."""


class _Smaller(Around):
    """The forward of a model with its images made smaller."""

    def __init__(self, inner: Callable[..., Any], dial: Resolution, count: int) -> None:
        super().__init__(inner)
        self._dial, self._count = dial, count

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        where = self._dial.where
        if isinstance(where, str):
            kwargs[where] = self._small(kwargs.get(where))
        elif len(args) > where:
            args = (*args[:where], self._small(args[where]), *args[where + 1 :])
        return self.inner(*args, **kwargs)

    def _small(self, image: Any) -> Any:
        # Another size than the one that was tried stays as it is.
        if not isinstance(image, torch.Tensor) or image.shape[2:] != self._dial.size:
            return image
        # The mean over the area: sampling at points would make patterns of what is finer than a pixel.
        return nn.functional.interpolate(image, size=self._dial.at(self._count), mode="area")


@dataclass(frozen=True, slots=True, eq=False)
class Resolution:
    """The dial of the images that a model is called with."""

    name: str
    model: nn.Module
    where: int | str
    """The number or the keyword of the argument."""
    size: torch.Size
    """Height and width in pixels."""
    stride: int
    """Pixels of the input for one of the coarsest map."""
    parts: Collection[nn.Module] = ()
    """The convolutions; what comes after the pooling does not get cheaper."""
    knob: str = "resolution"
    readers: tuple[nn.Module, ...] = ()

    @property
    def full(self) -> int:
        """The shorter side in strides."""
        return min(self.size) // self.stride

    def at(self, count: int) -> tuple[int, int]:
        """Return height and width at a position, in pixels."""
        if count == self.full:
            return self.size[0], self.size[1]
        height, width = (max(1, round(side / self.stride * count / self.full)) for side in self.size)
        return height * self.stride, width * self.stride

    def turned(self, count: int) -> Turned:
        """Return what is to be done for images whose shorter side is `count` strides."""
        return Turned(settings=(Setting(self.model, "forward", _Smaller(self.model.forward, self, count)),))

    def count(self, fraction: float, levels: int) -> int:
        """Return the position whose area is nearest to a fraction of the image's."""
        return min(range(self.least, self.full + 1), key=lambda count: abs(self._area(count) - fraction))

    def share(self, count: int, part: nn.Module) -> float:
        """Return how much of a convolution's work remains: the part of the area."""
        return self._area(count)

    @property
    def least(self) -> int:
        """The lowest position."""
        return max(1, -int(-self.full * LEAST // 1))

    def _area(self, count: int) -> float:
        height, width = self.at(count)
        return height * width / (self.size[0] * self.size[1])


def find(model: nn.Module, call: Call, run: Run) -> tuple[list[Dial], list[tuple[str, str]]]:
    """Return the dial of a model's images, or why there is none."""
    given: list[tuple[int | str, object]] = [*enumerate(call.args), *call.kwargs.items()]
    images = [
        (where, value)
        for where, value in given
        if isinstance(value, torch.Tensor) and value.dim() == 4 and value.is_floating_point()
    ]
    if len(images) != 1:
        return [], [("resolution", f"it is called with {len(images) or 'no'} images (batch, channels, h, w)")]
    where, image = images[0]
    stride, convolutions = _coarsest(model, run, image.shape[2])
    dial = Resolution(f"argument {where}", model, where, image.shape[2:], stride, convolutions)
    if dial.full < 2:
        small = f"of {tuple(dial.size)} pixels, {stride} of which are one in its coarsest map"
        reason: str | None = f"its images are {small}: none smaller is left"
    else:
        reason = difference(run, dial, range(dial.least, dial.full))
    return ([], [("resolution", reason)]) if reason is not None else ([dial], [])


def _coarsest(model: nn.Module, run: Run, height: int) -> tuple[int, list[nn.Module]]:
    """Return the total stride, and the convolutions that see the image."""
    stride = 1
    convolutions: list[nn.Module] = []

    def note(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal stride
        # One pixel is what is left when all are pooled: no map.
        if isinstance(output, torch.Tensor) and output.dim() == 4 and output.shape[2] > 1:
            stride = max(stride, round(height / output.shape[2]))
            convolutions.append(module)

    kinds = (_ConvNd, nn.MaxPool2d, nn.AvgPool2d)
    handles = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, kinds)]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return stride, list(dict.fromkeys(convolutions))
