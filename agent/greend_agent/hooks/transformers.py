"""Hugging Face Trainer: `Trainer(..., callbacks=[Greend()])`."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from greend_agent.agent import Agent
from greend_agent.hooks.following import Following


class Greend(TrainerCallback):
    """Follows the training from its start to its end, with the options of `greend_agent.attach`."""

    def __init__(self, **options: Any) -> None:
        self._following = Following(**options)

    @property
    def agent(self) -> Agent | None:
        """The agent, from the first training forward to the end."""
        return self._following.agent

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look for the model that is trained."""
        # Not the model that it is given here: what is called may be wrapped for several devices.
        steps = state.max_steps if state.max_steps > 0 else None
        self._following.start([kwargs["optimizer"]], already=state.global_step, steps=steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Have the trainer save a checkpoint and end, when the job is asked to stop."""
        if self.agent is not None and self.agent.should_stop:
            control.should_save = control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give the model back."""
        self._following.stop()
