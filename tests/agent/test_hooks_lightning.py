"""Lightning trains what it would have trained, and the callback takes part from start to end."""

from __future__ import annotations

import logging

import pytest
import torch

import greend_agent
from greend.types import Action
from greend_agent.signals import Order

from .nets import OPTIMIZERS, batches, net

pl = pytest.importorskip("lightning.pytorch")
pytestmark = pytest.mark.filterwarnings("ignore:::lightning", "ignore:::torch")

from greend_agent.hooks.lightning import Greend  # noqa: E402 (where Lightning is installed)


class Automatic(pl.LightningModule):
    """Lightning makes the steps."""

    def __init__(self, greend: Greend | None = None, level: int | None = None) -> None:
        super().__init__()
        self.net = net(drop=0.1)
        self.ask, self.level, self.levels = greend, level, []

    def configure_optimizers(self):
        return OPTIMIZERS["adamw"](self.net.parameters())

    def training_step(self, batch, index):
        loss = self.net(batch).square().mean()
        self.note()
        return loss

    def note(self) -> None:
        agent = self.ask.agent if self.ask else None
        if agent is not None:
            self.levels.append(agent.level)
            if self.level is not None:
                agent.request(self.level)


class Manual(Automatic):
    """The user makes the steps, with two optimizers."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.automatic_optimization = False
        self.other = torch.nn.Linear(16, 16)

    def configure_optimizers(self):
        return OPTIMIZERS["sgd"](self.other.parameters()), OPTIMIZERS["adamw"](self.net.parameters())

    def training_step(self, batch, index):
        first, second = self.optimizers()
        self.manual_backward(self.net(self.other(batch)).square().mean())
        self.note()
        for optimizer in (first, second):
            optimizer.step()
            optimizer.zero_grad()


def fit(module, callbacks=(), accumulate=1, epochs=2):
    torch.manual_seed(5)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=1.0 if module.automatic_optimization else None,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(module, torch.utils.data.DataLoader(torch.stack(batches(6)).flatten(0, 1), batch_size=8))
    return module


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(s, t) for (a, s), (b, t) in pairs)


@pytest.mark.parametrize(("kind", "accumulate"), [(Automatic, 2), (Manual, 1)], ids=["automatic", "manual"])
def test_at_the_top_the_weights_are_those_of_a_run_without_greend(kind, accumulate):
    greend = Greend()
    plain = fit(kind(), accumulate=accumulate)
    followed = fit(kind(greend), [greend], accumulate)

    assert followed.levels.count(3) >= 6
    assert same(plain, followed)


@pytest.mark.parametrize(("kind", "accumulate"), [(Automatic, 2), (Manual, 1)], ids=["automatic", "manual"])
def test_level_0_is_used_and_the_model_is_given_back_at_the_end(kind, accumulate):
    greend = Greend()
    module = fit(kind(greend, 0), [greend], accumulate)

    assert module.levels[-4:] == [0, 0, 0, 0]
    assert greend.agent is None
    assert [p.shape for p in module.parameters()] == [p.shape for p in kind().parameters()]
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in module.modules())


def test_a_level_lasts_for_a_whole_accumulation():
    greend = Greend()
    module = fit(Automatic(greend, 0), [greend], accumulate=3, epochs=4)
    changes = [i for i in range(1, len(module.levels)) if module.levels[i] != module.levels[i - 1]]

    assert all((i - len(module.levels)) % 3 == 0 for i in changes)
    assert module.levels[-1] == 0


def test_a_job_that_is_asked_to_stop_ends_after_a_step_without_an_error():
    class Asked(Automatic):
        def training_step(self, batch, index):
            loss = super().training_step(batch, index)
            if len(self.levels) == 3:
                self.ask.agent._signals.order = Order(level=0, action=Action.STOP, seq=5)
            return loss

    greend = Greend()
    module = fit(Asked(greend), [greend])

    assert len(module.levels) == 4  # told in the third of them
    assert module.trainer.should_stop
    assert [p.shape for p in module.parameters()] == [p.shape for p in Automatic().parameters()]


def test_of_several_optimizers_the_largest_is_followed_and_named(caplog):
    greend = Greend()
    with caplog.at_level(logging.WARNING, "greend"):
        fit(Manual(greend), [greend])

    assert "of 2 optimizers follows AdamW number 1, the largest" in caplog.text


def test_an_exception_in_the_loop_leaves_the_original_model():
    class Fails(Automatic):
        def training_step(self, batch, index):
            loss = super().training_step(batch, index)
            if self.levels[-1:] == [0]:
                raise ArithmeticError("of the user")
            return loss

    greend = Greend()
    module = Fails(greend, 0)
    with pytest.raises(ArithmeticError):
        fit(module, [greend])

    assert [p.shape for p in module.parameters()] == [p.shape for p in Automatic().parameters()]
    assert greend_agent.agent.agent_of(module.net) is None
