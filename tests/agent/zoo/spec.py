"""What a random net is: its kind of data, its widths, its blocks and its head."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from .family import Inputs, normal

WIDTH = 8
"""The width of the stream between the blocks."""

PLACES: dict[str, tuple[int, ...]] = {"vector": (), "sequence": (5,), "image": (6, 6), "signal": (12,)}
"""For each kind of data, the size of what lies beside the features."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A net; a block is its shape, what lies in its middle, and whether it is added to its input."""

    kind: str
    hidden: int
    blocks: tuple[tuple[str, tuple[str, ...], bool], ...]
    head: str = "mean"
    kernel: int = 3
    seed: int = 0

    @property
    def features(self) -> int:
        """The dimension of the features."""
        return -1 if self.kind in ("vector", "sequence") else 1

    @property
    def channels(self) -> tuple[int, ...]:
        """The shape of a number for each hidden unit."""
        return (self.hidden,) if self.features == -1 else (self.hidden, *(1 for _ in PLACES[self.kind]))

    def inputs(self, seed: int, batch: int = 3, scale: float = 1.0) -> Inputs:
        """Return the arguments of a forward."""
        places = PLACES[self.kind]
        shape = (batch, *places, WIDTH) if self.features == -1 else (batch, WIDTH, *places)
        return (scale * normal(shape, seed),), {}

    def layer(self, inside: int, outside: int, **options: int) -> nn.Module:
        """Return a linear layer, or a convolution with the spec's kernel."""
        if self.features == -1:
            return nn.Linear(inside, outside)
        conv = nn.Conv2d if self.kind == "image" else nn.Conv1d
        return conv(inside, outside, self.kernel, padding=self.kernel // 2, **options)
