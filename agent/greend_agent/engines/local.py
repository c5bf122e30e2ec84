"""One process: the level that is wanted is the level in force."""

from __future__ import annotations

from torch import nn

from greend_agent.plan import Plan


class Engine:
    """What the agent asks and tells at each point of a step; others override what is different with them."""

    def __init__(self, model: nn.Module) -> None:
        self.outer = model
        """What the training loop calls."""

    @property
    def model(self) -> nn.Module:
        """What is planned and narrowed: the module without what wraps it."""
        return self.outer

    def agree(self, plan: Plan) -> str | None:
        """Say why this plan cannot be used, where all processes have made one; None when it can."""

    def level(self, want: int, top: int) -> int:
        """Return the level of the step that begins."""
        return want

    def lowered(self, level: int) -> None:
        """Note that the windows of a level below the top are on, before the forward."""

    def restored(self) -> None:
        """Note that everything is full again after a step below the top."""

    def close(self) -> None:
        """Give back what the engine holds; the model is run as it was found."""
