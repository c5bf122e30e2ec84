"""A loop with accelerate trains what it would have trained, and what it prepared can be attached."""

from __future__ import annotations

import pytest
import torch

from .nets import OPTIMIZERS, batches, net

accelerate = pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore:::accelerate", "ignore:::torch")

from greend_agent.hooks.accelerate import attach  # noqa: E402 (where accelerate is installed)


@pytest.fixture(autouse=True)
def anew():
    yield
    # Accelerate is one per process; another precision is another process to it.
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def fit(level: int | None = None, mixed_precision: str = "no"):
    accelerator = accelerate.Accelerator(
        cpu=True, gradient_accumulation_steps=2, mixed_precision=mixed_precision
    )
    model = net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    model, optimizer = accelerator.prepare(model, optimizer)
    agent = attach(model, optimizer) if level is not None else None
    levels = []
    for x in batches(12):
        if agent is not None and agent.step_count >= 2:
            agent.request(level)
        with accelerator.accumulate(model):
            accelerator.backward(model(x).square().mean())
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        levels += [agent.level] if agent is not None else []
    return model, agent, levels


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
def test_at_the_top_the_weights_are_those_of_a_run_without_greend(mixed_precision):
    plain, _, _ = fit(mixed_precision=mixed_precision)
    followed, agent, _ = fit(3, mixed_precision)

    assert (agent.level, agent.step_count, len(agent.costs)) == (3, 6, 4)
    for a, b in zip(plain.parameters(), followed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
def test_level_0_is_used_and_detach_gives_the_model_back(mixed_precision):
    model, agent, levels = fit(0, mixed_precision)
    agent.detach()

    assert levels[-4:] == [0, 0, 0, 0]
    assert [p.shape for p in model.parameters()] == [p.shape for p in net().parameters()]
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_an_optimizer_that_was_not_prepared_is_refused_in_words():
    model = net()
    with pytest.raises(TypeError, match=r"what accelerator\.prepare returned, not a AdamW"):
        attach(model, OPTIMIZERS["adamw"](model.parameters()))
