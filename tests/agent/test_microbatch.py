"""The batch in parts: the same values from less memory."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn

import greend_agent
from greend_agent.knobs import microbatch
from greend_agent.plan.probe import Call, undisturbed
from greend_agent.plan.trial import turned_down

from .nets import OPTIMIZERS, WIDTH, batches, net, train


def find(model: nn.Module, *args, **kwargs):
    call = Call.of(args or (batches(1)[0],), kwargs)
    with undisturbed(model, call) as run:
        return microbatch.find(model, call, run)


def dial_of(model: nn.Module, *args, **kwargs) -> microbatch.MicroBatch:
    (dial,), rejected = find(model, *args, **kwargs)
    assert rejected == []
    return dial


def gradients(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    model(x).square().mean().backward()
    return [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("size", [8, 7, 2, 1])
def test_outputs_and_gradients_are_those_of_the_whole_batch(count, size):
    model = net()
    dial, x = dial_of(model), torch.randn(size, WIDTH)
    output, whole = model(x), gradients(model, x)
    with turned_down(dial, count):
        parts = model(x)
        assert torch.allclose(parts, output, atol=1e-6)
        for a, b in zip(gradients(model, x), whole, strict=True):
            assert torch.allclose(a, b, atol=1e-6)


def peak(model: nn.Module, x: torch.Tensor) -> int:
    """The most entries of hidden activations that were there at a time, in a forward and backward."""
    living: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def note(module: nn.Module, args: object, output: torch.Tensor) -> None:
        nonlocal most
        living.append(weakref.ref(output.untyped_storage()))
        sizes = [s.nbytes() // 4 for ref in living if (s := ref()) is not None]
        most = max(most, sum(sizes))

    handles = [block.up.register_forward_hook(note) for block in model[:-1]]
    gradients(model, x)
    for handle in handles:
        handle.remove()
    return most


def test_no_more_than_a_parts_activations_are_there_at_a_time():
    model, x = net(depth=4), torch.randn(16, WIDTH)
    dial = dial_of(model, x)
    whole = peak(model, x)
    parts = []
    for count in (1, 2):
        with turned_down(dial, count):
            parts.append(peak(model, x) / whole)

    assert parts == [0.25, 0.5]
    assert [dial.share(count, model) for count in (1, 2)] == parts


def test_dropout_is_the_same_again_in_the_backward():
    model = net(drop=0.5)
    dial = dial_of(model)
    with turned_down(dial, 1):
        x = batches(1)[0].requires_grad_()
        torch.manual_seed(3)
        output = model(x)
        output.sum().backward()
        torch.manual_seed(3)
        parts = [model[:-1](part) for part in x.detach().requires_grad_().split(2)]

    assert torch.allclose(output, model[-1](torch.cat(parts)), atol=1e-6)
    leaf = x.detach().requires_grad_()
    torch.manual_seed(3)
    sum(model[-1](model[:-1](part)).sum() for part in leaf.split(2)).backward()
    assert torch.allclose(x.grad, leaf.grad, atol=1e-6)


class Attending(nn.Module):
    """Takes a mask that all samples share, of which one side may be as long as the batch."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x, mask=None, weight=None):
        y = nn.functional.scaled_dot_product_attention(self.layer(x), x, x, attn_mask=mask)
        return (y * weight[:, None, None], {"mean": y.mean(dim=1)})


def test_what_has_no_batch_dimension_goes_to_every_part_whole_and_structures_are_put_together():
    model, x, mask = Attending(), torch.randn(8, 5, WIDTH), torch.ones(5, 5).tril().bool()
    weight = torch.rand(8)
    dial = dial_of(model, x, mask, weight=weight)
    assert dial.batched == {0, "weight"}
    whole = model(x, mask, weight=weight)
    with turned_down(dial, 1):
        parts = model(x, mask, weight=weight)

    assert torch.allclose(parts[0], whole[0], atol=1e-6)
    assert torch.allclose(parts[1]["mean"], whole[1]["mean"], atol=1e-6)


def test_a_mask_as_long_as_the_batch_is_not_taken_for_one():
    model, x, mask = Attending(), torch.randn(5, 5, WIDTH), torch.ones(5, 5).tril().bool()

    assert "in parts it raises RuntimeError" in find(model, x, mask, weight=torch.rand(5))[1][0][1]


def test_in_evaluation_nothing_is_kept_and_nothing_computed_twice():
    model = net()
    dial, calls = dial_of(model), []
    model[0].register_forward_hook(lambda module, args, output: calls.append(len(output)))
    with turned_down(dial, 1), torch.no_grad():
        output = model.eval()(batches(1)[0])

    assert calls == [2, 2, 2, 2]
    assert not output.requires_grad


class Loss(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        return self.net(x).square().mean()


class Centred(nn.Module):
    def __init__(self, training_only: bool = False):
        super().__init__()
        self.layer, self.training_only = nn.Linear(WIDTH, 4), training_only

    def forward(self, x):
        y = self.layer(x)
        return y if self.training_only and not self.training else y - y.mean(dim=0)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, 4)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += 1
        return self.layer(x)


@pytest.mark.parametrize(
    ("model", "x", "words"),
    [
        (lambda: nn.Sequential(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8)), batches(1)[0], "batch norm"),
        (Loss, batches(1)[0], "the batch as its first dimension"),
        (Centred, batches(1)[0], "other values than the whole"),
        (lambda: Centred(training_only=True), batches(1)[0], "other values than the whole"),
        (Counting, batches(1)[0], "its buffers change"),
        (net, batches(1)[0][:1], "single sample"),
    ],
    ids=["batch norm", "loss", "batch mean", "batch mean in training", "counter", "one sample"],
)
def test_where_parts_are_not_the_whole_it_is_rejected_and_it_says_why(model, x, words):
    dials, ((name, reason),) = find(model(), x)

    assert dials == []
    assert name == "microbatch"
    assert words in reason


def test_no_modules_flops_fall_with_it():
    dial = dial_of(net())

    assert list(dial.parts) == []
    assert [dial.count(fraction, 4) for fraction in (0.1, 0.3, 0.5, 0.8, 1.0)] == [1, 1, 2, 3, 4]


def test_attached_the_top_is_what_it_is_without_greend_to_the_last_bit():
    def run(with_greend: bool) -> list[torch.Tensor]:
        model = net(drop=0.3)
        optimizer = OPTIMIZERS["adamw"](model.parameters())
        if with_greend:
            agent = greend_agent.attach(model, optimizer, knobs=["ffn", "microbatch"])
        torch.manual_seed(7)
        train(model, optimizer, batches(5))
        if with_greend:
            assert len(agent.costs) == 4, agent.report()
            agent.detach()
            assert "forward" not in vars(model)
        return [p.detach().clone() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(run(True), run(False), strict=True))
