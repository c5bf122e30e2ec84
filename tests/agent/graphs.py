"""What torch.compile makes graphs of."""

from __future__ import annotations

import torch


class Graphs:
    """A backend that compiles nothing, and counts."""

    def __init__(self) -> None:
        self.made = self.dynamic = 0
        self.fail = False

    def __call__(self, graph: torch.fx.GraphModule, inputs: list) -> object:
        if self.fail:
            raise RuntimeError("no such kernel")
        self.made += 1
        self.dynamic += any(isinstance(i, torch.SymInt) for i in inputs)
        return graph.forward
