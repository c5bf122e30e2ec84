"""What training loops do, at a level below the top: what is live trains as a physically small model would."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

import greend_agent

from .loops import backward, lowered
from .nets import HIDDEN, OPTIMIZERS, WIDTH, batches, net, step, train

Loop = Callable[[nn.Sequential, torch.optim.Optimizer, list[torch.Tensor]], None]


def loss_of(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model(x).square().mean()


def accumulating(model, optimizer, xs):
    for first, second in zip(xs[::2], xs[1::2], strict=True):
        (loss_of(model, first) / 2).backward()
        (loss_of(model, second) / 2).backward()
        optimizer.step()
        optimizer.zero_grad()


def clipping(model, optimizer, xs):
    for x in xs:
        optimizer.zero_grad()
        loss_of(model, x).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()


def clipping_values_in_place(model, optimizer, xs):
    for x in xs:
        loss_of(model, x).backward()
        nn.utils.clip_grad_value_(model.parameters(), 0.01)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)


def scaling(model, optimizer, xs):
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    for x in xs:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, x)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()


def scheduling(model, optimizer, xs):
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for x in xs:
        step(model, optimizer, x)
        scheduler.step()


def closing(model, optimizer, xs):
    for x in xs:

        def closure(x=x):
            optimizer.zero_grad()
            loss = loss_of(model, x)
            loss.backward()
            return loss

        assert float(optimizer.step(closure).detach()) > 0


def zeroing_in_between(model, optimizer, xs):
    for x in xs:
        loss = loss_of(model, x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def checkpointing(reentrant: bool) -> Loop:
    def loop(model, optimizer, xs):
        for block in list(model)[:-1]:
            plain = block.forward
            block.forward = lambda x, plain=plain: checkpoint(plain, x, use_reentrant=reentrant)
        for x in xs:
            step(model, optimizer, x.requires_grad_())

    return loop


def evaluating(model, optimizer, xs):
    for x in xs:
        optimizer.zero_grad()
        loss_of(model, x).backward()
        model.eval()
        with torch.no_grad():
            model(x)
        model.train()
        loss_of(model, x).backward()
        optimizer.step()


def averaging(model, optimizer, xs):
    average = None
    for x in xs:
        step(model, optimizer, x)
        average = average or AveragedModel(model)
        average.update_parameters(model)
    assert all(a.shape == p.shape for a, p in zip(average.parameters(), model.parameters(), strict=True))


def following_by_hand(model, optimizer, xs):
    ema = {name: p.detach().clone() for name, p in model.named_parameters()}
    for x in xs:
        step(model, optimizer, x)
        with torch.no_grad():
            for name, p in model.named_parameters():
                ema[name].mul_(0.9).add_(p, alpha=0.1)


def clamping(model, optimizer, xs):
    for x in xs:
        step(model, optimizer, x)
        for p in model.parameters():
            p.data.clamp_(-0.2, 0.2)


LOOPS: dict[str, Loop] = {
    "accumulation": accumulating,
    "clipping": clipping,
    "clipping in place": clipping_values_in_place,
    "scaler and autocast": scaling,
    "scheduler": scheduling,
    "closure": closing,
    "zero_grad before backward": zeroing_in_between,
    "checkpoints": checkpointing(False),
    "reentrant checkpoints": checkpointing(True),
    "evaluation in mid-step": evaluating,
    "averaged model": averaging,
    "moving average": following_by_hand,
    "clamped weights": clamping,
}


def copied_small(model, optimizer, hidden: int, kind: str):
    """A physically small model with the first hidden units of a model, and its optimizer state."""
    small = net(hidden=hidden)
    twin = OPTIMIZERS[kind](small.parameters())
    for whole, part in zip(model.parameters(), small.parameters(), strict=True):
        index = tuple(slice(0, n) for n in part.shape)
        with torch.no_grad():
            part.copy_(whole[index])
        twin.state[part] = {
            name: (value[index] if value.numel() > 1 else value).clone()
            for name, value in optimizer.state[whole].items()
            if isinstance(value, torch.Tensor)
        }
    return small, twin


@pytest.mark.parametrize("kind", ["sgd", "adamw-fused"])
@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_at_level_0_trains_a_physically_small_model(name, kind):
    model, optimizer, agent = lowered(kind)
    widths: list[int] = []
    handle = model[0].up.register_forward_hook(lambda m, a, o: widths.append(m.weight.shape[0]))
    train(model, optimizer, batches(1, seed=6))
    handle.remove()
    optimizer.zero_grad()
    small, twin = copied_small(model, optimizer, widths[-1], kind)
    xs = batches(8, seed=7)

    LOOPS[name](model, optimizer, [x.clone() for x in xs])
    LOOPS[name](small, twin, [x.clone() for x in xs])

    assert widths[-1] < HIDDEN
    assert agent.level == 0
    for whole, part in zip(model.parameters(), small.parameters(), strict=True):
        assert torch.equal(whole[tuple(slice(0, n) for n in part.shape)], part)


def test_groups_of_parameters_keep_their_own_settings():
    model = net()
    plain = [p for p in model.parameters() if p.dim() == 1]
    heavy = [p for p in model.parameters() if p.dim() > 1]
    optimizer = torch.optim.AdamW(
        [{"params": plain, "lr": 0.0, "weight_decay": 0.0}, {"params": heavy, "lr": 1e-2, "fused": True}]
    )
    agent = greend_agent.attach(model, optimizer)
    train(model, optimizer, batches(1))
    agent.request(0)
    before = [p.detach().clone() for p in plain]
    train(model, optimizer, batches(4))

    assert agent.level == 0
    assert all(torch.equal(a, b) for a, b in zip(before, plain, strict=True))
    assert bool((model[0].up.weight[0] != net()[0].up.weight[0]).all())


def test_tied_weights_are_left_alone():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.body = nn.Embedding(9, WIDTH), net()[:-1]
            self.out = nn.Linear(WIDTH, 9, bias=False)
            self.out.weight = self.token.weight

        def forward(self, x):
            return self.out(self.body(self.token(x)))

    model = Tied()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = greend_agent.attach(model, optimizer)
    x = torch.arange(9)
    train(model, optimizer, [x])
    agent.request(0)
    shapes: list[tuple[torch.Size, torch.Size]] = []
    model.out.register_forward_hook(lambda m, a, o: shapes.append((m.weight.shape, model.token.weight.shape)))
    train(model, optimizer, [x, x])

    assert agent.level == 0
    assert set(shapes) == {(torch.Size((9, WIDTH)), torch.Size((9, WIDTH)))}
    assert model.out.weight is model.token.weight


def test_a_run_that_is_saved_and_loaded_in_the_middle_goes_on_as_one_that_was_not():
    def weights(interrupted: bool) -> list[torch.Tensor]:
        model, optimizer, _ = lowered()
        xs = batches(10, seed=3)
        train(model, optimizer, xs[:5])
        if interrupted:
            saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
            train(model, optimizer, xs[2:4])
            model.load_state_dict(saved[0])
            optimizer.load_state_dict(saved[1])
        train(model, optimizer, xs[5:])
        return [p.detach().clone() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(weights(True), weights(False), strict=True))


def test_hooks_on_tensors_and_on_their_accumulation_are_called_at_each_level():
    model, optimizer, agent = lowered()
    seen: list[tuple[str, int]] = []
    up = model[0].up.weight
    up.register_hook(lambda g: seen.append(("gradient", g.shape[0])))
    up.register_post_accumulate_grad_hook(lambda p: seen.append(("accumulated", p.grad.shape[0])))
    train(model, optimizer, batches(2))
    agent.request(3)
    train(model, optimizer, batches(1))

    live = seen[0][1]
    assert live < HIDDEN
    assert seen == [("gradient", live), ("accumulated", live)] * 2 + [
        ("gradient", HIDDEN),
        ("accumulated", HIDDEN),
    ]


class Interrupting(nn.Module):
    """Interrupts a forward when it is told to."""

    kind: type[BaseException] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind is not None:
            raise self.kind
        return x


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_nothing_survives_an_interrupt_of_the_forward(kind):
    model = net()
    model.append(Interrupting())
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = greend_agent.attach(model, optimizer)
    train(model, optimizer, batches(1))
    agent.request(0)
    train(model, optimizer, batches(3))
    model[-1].kind = kind
    optimizer.zero_grad()
    with pytest.raises(kind):
        model(batches(1)[0])

    assert model[0].up.weight.shape[0] == HIDDEN
    assert optimizer.state[model[0].down.weight]["exp_avg"].shape == (WIDTH, HIDDEN)
    model[-1].kind = None
    train(model, optimizer, batches(1))
    assert agent.level == 0
    copied = copy.deepcopy(model)
    agent.detach()
    assert "_compiled_call_impl" not in vars(model) | vars(copied)


class Failing(torch.autograd.Function):
    """A backward that raises, as one does that runs out of memory."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("out of memory")


def test_after_a_backward_that_raises_what_is_saved_and_evaluated_is_whole_and_the_job_goes_on():
    model, optimizer, agent = lowered()
    train(model, optimizer, batches(2))
    x = batches(1)[0]
    model.eval()
    with torch.no_grad():
        expected = model(x)
    model.train()
    with pytest.raises(RuntimeError, match="out of memory"):
        Failing.apply(model(x)).sum().backward()

    model.eval()
    with torch.no_grad():
        assert torch.equal(model(x), expected)
    model.train()
    assert model.state_dict()["0.up.weight"].shape == (HIDDEN, WIDTH)
    with greend_agent.full(model):
        assert model[0].up.weight.shape == (HIDDEN, WIDTH)
    train(model, optimizer, batches(1))
    assert model[0].up.weight.shape == (HIDDEN, WIDTH)
    assert agent.level == 0


def test_a_training_forward_without_a_step_changes_nothing():
    def weights(extra: bool) -> list[torch.Tensor]:
        model, optimizer, _ = lowered()
        train(model, optimizer, batches(2))
        if extra:
            model(batches(1)[0])
        train(model, optimizer, batches(3, seed=2))
        return [p.detach().clone() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(weights(True), weights(False), strict=True))


def test_a_checkpoint_of_the_whole_model_is_recomputed_at_the_level_of_its_forward():
    model, optimizer, agent = lowered()
    widths: list[int] = []
    model[0].up.register_forward_hook(lambda m, a, o: widths.append(m.weight.shape[0]))
    for x in batches(2):
        optimizer.zero_grad()
        checkpoint(model, x.requires_grad_(), use_reentrant=True).square().mean().backward()
        optimizer.step()

    assert widths == [HIDDEN] * 4
    assert agent.level == 3


def test_a_step_inside_full_is_made_with_the_gradients_of_the_level():
    def weights(inside: bool) -> list[torch.Tensor]:
        model, optimizer, _ = lowered()
        for _ in range(3):
            backward(model, optimizer)
            if inside:
                with greend_agent.full(model):
                    assert model[0].up.weight.grad.shape == (HIDDEN, WIDTH)
                    optimizer.step()
                    assert model[0].up.weight.shape == (HIDDEN, WIDTH)
            else:
                optimizer.step()
        return [p.detach().clone() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(weights(True), weights(False), strict=True))


def test_gradients_scaled_inside_full_are_those_of_the_step():
    model, optimizer, _ = lowered("sgd")
    backward(model, optimizer)
    before = model[0].up.weight.grad.clone()
    with greend_agent.full(model):
        for p in model.parameters():
            p.grad.mul_(2)

    assert torch.equal(model[0].up.weight.grad, before * 2)
    optimizer.step()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_forked_in_mid_step_sees_the_whole_model_in_what_it_saves():
    model, optimizer, _ = lowered()
    train(model, optimizer, batches(2))
    backward(model, optimizer)
    child = os.fork()
    if child == 0:
        whole = model.state_dict()["0.up.weight"].shape == (HIDDEN, WIDTH)
        optimizer.step()
        os._exit(0 if whole and model[0].up.weight.shape == (HIDDEN, WIDTH) else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert model[0].up.weight.shape[0] < HIDDEN
    optimizer.step()
    assert model[0].up.weight.shape == (HIDDEN, WIDTH)
