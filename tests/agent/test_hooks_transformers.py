"""The Hugging Face Trainer trains what it would have trained, and the callback takes part."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore:::transformers", "ignore:::torch", "ignore:::accelerate")

from greend.types import Action  # noqa: E402
from greend_agent.hooks.transformers import Greend  # noqa: E402 (where transformers is installed)
from greend_agent.signals import Order  # noqa: E402


def model() -> torch.nn.Module:
    config = transformers.GPT2Config(
        n_layer=2, n_embd=32, n_head=4, n_inner=64, vocab_size=64, n_positions=16, use_cache=False
    )
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(config)


class Asks(transformers.TrainerCallback):
    """Asks for a level at each step, and notes what it was."""

    def __init__(self, greend: Greend, level: int) -> None:
        self.greend, self.level, self.seen = greend, level, []

    def on_step_end(self, args, state, control, **kwargs):
        if self.greend.agent is not None:
            self.seen.append(self.greend.agent.level)
            self.greend.agent.request(self.level)


def fit(folder: Path, callbacks=()) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(1)
    data = [
        {"input_ids": (ids := torch.randint(64, (16,), generator=generator)), "labels": ids}
        for _ in range(48)
    ]
    arguments = transformers.TrainingArguments(
        str(folder),
        max_steps=8,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=3,
    )
    trained = model()
    transformers.Trainer(trained, arguments, train_dataset=data, callbacks=list(callbacks)).train()
    return trained


def test_at_the_top_the_weights_are_those_of_a_run_without_greend(tmp_path):
    greend = Greend()
    asks = Asks(greend, 3)
    plain, followed = fit(tmp_path), fit(tmp_path, [greend, asks])

    assert asks.seen[-4:] == [3, 3, 3, 3]
    for a, b in zip(plain.parameters(), followed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_level_0_is_used_and_the_model_is_given_back_at_the_end(tmp_path):
    greend = Greend()
    asks = Asks(greend, 0)
    trained = fit(tmp_path, [greend, asks])

    assert asks.seen[-4:] == [0, 0, 0, 0]
    assert greend.agent is None
    assert [p.shape for p in trained.parameters()] == [p.shape for p in model().parameters()]
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in trained.modules())


def test_a_job_that_is_asked_to_stop_saves_a_checkpoint_and_ends(tmp_path):
    greend = Greend()

    class Asks(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 4:
                greend.agent._signals.order = Order(level=0, action=Action.STOP, seq=5)

    fit(tmp_path, [greend, Asks()])

    assert [folder.name for folder in tmp_path.glob("checkpoint-*")] == ["checkpoint-5"]
