"""What narrows together."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """A hidden width: the layers that make it and the layers that read it."""

    producers: tuple[nn.Linear, ...]
    consumers: tuple[nn.Linear, ...]
    width: int
    name: str
