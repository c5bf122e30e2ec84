"""Lightning: `Trainer(callbacks=[Greend()])`."""

from __future__ import annotations

import importlib
from typing import Any

from greend_agent.agent import Agent
from greend_agent.hooks.following import Following

try:
    pl: Any = importlib.import_module("lightning.pytorch")
except ImportError:  # the older package of the same code
    pl = importlib.import_module("pytorch_lightning")


class Greend(pl.Callback):  # type: ignore[misc]
    """Follows the training from its start to its end, with the options of `greend_agent.attach`.

    Accumulated gradients, automatic and manual optimization are all the same to it: a level lasts from a
    step's first forward to the optimizer's step. Of several optimizers it follows the one with the most
    parameters, and says which. When the job is asked to stop the trainer does, as after `EarlyStopping`: not
    before `min_steps` and `min_epochs`, and with what its `ModelCheckpoint` saves at the end.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._following = Following(**options)

    @property
    def agent(self) -> Agent | None:
        """The agent, from the first training forward to the end."""
        return self._following.agent

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Look for the model that is trained."""
        several = len(trainer.optimizers) > 1
        total = trainer.estimated_stepping_batches
        # Lightning counts the steps of all optimizers together.
        steps = None if several or total == float("inf") else int(total)
        already = 0 if several else trainer.global_step
        self._following.start(trainer.optimizers, already=already, steps=steps)

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        """Have the trainer end after this batch, when the job is asked to stop."""
        if self.agent is not None and self.agent.should_stop:
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Give the model back."""
        self._following.stop()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Give the model back."""
        self._following.stop()
