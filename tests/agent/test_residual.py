"""A residual block that with its weights at zero is the identity can be skipped, and nothing else is."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import nn

from greend_agent.dial import spread
from greend_agent.windows.window import WindowSet

from .blocks import TOKENS, Basic, D, Own, PostLN, PreLN, ReZero, Scaled, call_of, disagreements, found, net

NETS = {
    "pre-ln": lambda: net(PreLN),
    "torch's own": lambda: net(
        lambda: nn.TransformerEncoderLayer(D, 4, 2 * D, norm_first=True, batch_first=True)
    ),
    "convnext": lambda: net(Scaled, image=True),
    "resnet": lambda: net(Basic, image=True),
    "bottleneck": lambda: net(lambda: Basic(bottleneck=True), image=True),
    "rezero": lambda: net(ReZero),
}


@pytest.mark.parametrize("kind", NETS)
def test_residual_blocks_are_found_and_every_number_of_them_is_proven(kind):
    model = NETS[kind]().train()

    dial, rejected = found(model)

    assert (dial.full, rejected) == (8, [])
    assert disagreements(model, dial) == []


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("training", [True, False])
def test_with_blocks_skipped_it_is_the_model_without_them_and_then_the_model_of_before(kind, training):
    model = NETS[kind]().train(training)
    dial, _ = found(model)
    expected_full = run_once(copy.deepcopy(model))
    windows = WindowSet(spread([dial], [[5], [dial.full]]))
    skipped = {id(block.module) for block in dial.blocks[:3]}
    without = copy.deepcopy(nn.Sequential(*(m for m in model if id(m) not in skipped)))
    assert len(without) == len(model) - 3

    windows.apply(0)
    actual = run_once(copy.deepcopy(model))
    windows.restore()

    assert torch.equal(actual, run_once(without))
    assert torch.equal(run_once(model), expected_full)
    assert not any("forward" in vars(module) for module in model.modules())


def run_once(model):
    torch.manual_seed(1)
    return model(*call_of(model).args)


class PostLNWithoutWeights(PostLN):
    """Twice normed is once normed, but for the last bits."""

    def __init__(self):
        super().__init__()
        self.norm = self.other_norm = nn.LayerNorm(D, elementwise_affine=False)


def one_layer_for_all():
    shared = nn.Sequential(nn.Linear(D, D), nn.Tanh())

    def block():
        made = Own(lambda x, y: x + y)
        made.layer = shared
        return made

    return net(block)


def replaced():
    model = net(ReZero)
    for block in model[1:-1]:
        block.forward = functools.partial(ReZero.forward, block)
    return model


class Again(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.blocks = nn.Linear(D, D), nn.ModuleList(ReZero() for _ in range(8))

    def forward(self, x):
        x = self.stem(x)
        for block in [*self.blocks, *self.blocks]:
            x = block(x)
        return x


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (net(PostLN), "not reach its output by addition alone, but through NativeLayerNorm"),
        (net(PostLNWithoutWeights), "through NativeLayerNorm"),
        (net(lambda: Own(lambda x, y: 0.5 * x + y)), "through Mul"),
        (net(lambda: Own(lambda x, y: x * y.sigmoid())), "through Mul"),
        (net(lambda: Own(lambda x, y: y - x)), "it is not the identity"),
        (net(lambda: Own(lambda x, y: torch.relu(x + y))), "it is not the identity"),
        (net(lambda: Own(lambda x, y: x + y + x.mean())), "it is not the identity"),
        (net(lambda: Own(lambda x, y: x.add_(y))), "changes in place what it is given"),
        (net(lambda: Own(lambda x, y: y)), "through Tanh"),
        (net(lambda: Own(lambda x, y: (x + y).detach())), "has no gradient"),
        (one_layer_for_all(), "it shares a layer or a weight"),
        (replaced(), "its forward has been replaced"),
        (Again(), "called 2 times"),
    ],
    ids=[
        "post-ln", "post-ln without weights", "a scaled stream", "a gate", "negated", "relu on any stream",
        "adds its mean", "in place", "not residual", "detached", "shared layer", "replaced", "twice",
    ],
)  # fmt: skip
def test_what_is_not_the_identity_at_zero_is_left_alone_and_the_reason_is_said(model, reason):
    dial, rejected = found(model)

    assert dial is None
    assert any(reason in why for _, why in rejected), rejected


def test_a_stream_that_is_changed_in_place_after_a_block_keeps_that_block():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(ReZero() for _ in range(9))

        def forward(self, x):
            for which, block in enumerate(self.blocks):
                x = block(x)
                if which == 4:
                    x.relu_()
            return x

    dial, rejected = found(nn.Sequential(nn.Linear(D, D), Late()))

    assert dial.full == 8
    reason = "cannot be skipped: what it returns is changed in place afterwards"
    assert rejected == [("1.blocks.4", reason)]


class Around(nn.Module):
    """A model's loop over its blocks."""

    def __init__(self, returns, calls):
        super().__init__()
        self.stem, self.calls = nn.Linear(D, D), calls
        self.blocks = nn.ModuleList(Returning(returns) for _ in range(8))

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = self.calls(block, x)
        return x


class Returning(nn.Module):
    def __init__(self, returns):
        super().__init__()
        self.inner, self.returns = nn.Sequential(nn.Linear(D, D), nn.Tanh()), returns

    def forward(self, hidden_states, cache=None):
        return self.returns(hidden_states + self.inner(hidden_states))


@pytest.mark.parametrize(
    ("returns", "calls"),
    [
        (lambda y: y, lambda block, x: block(hidden_states=x)),
        (lambda y: y, lambda block, x: block(x, cache=None)),
        (lambda y: (y,), lambda block, x: block(x)[0]),
        (lambda y: (y, None), lambda block, x: block(hidden_states=x)[0]),
        (lambda y: [None, y], lambda block, x: block(x)[1]),
        # Activation checkpointing hands over by position what is named otherwise.
        (
            lambda y: y,
            lambda block, x: block(x) if block.training else block(hidden_states=x),
        ),
    ],
    ids=["keyword", "position", "tuple of one", "tuple with none", "list", "another way in training"],
)  # fmt: skip
def test_a_block_is_skipped_in_the_form_in_which_it_is_called_and_returns(returns, calls):
    model = Around(returns, calls).train()
    dial, rejected = found(model)
    windows = WindowSet(spread([dial], [[4], [dial.full]]))

    windows.apply(0)
    x = model.stem(TOKENS)
    for block in model.blocks:
        skipped = any(block is one.module for one in dial.blocks[:4])
        x = x if skipped else x + block.inner(x)
    actual = model(TOKENS)
    windows.restore()

    assert not rejected
    assert torch.equal(actual, x)


class Opaque(Returning):
    """A block, as a decorator leaves it that does not say what it wraps."""

    def forward(self, *args, **kwargs):
        return super().forward(kwargs["hidden_states"])


def test_what_a_block_is_named_is_not_confused_with_what_comes_before_it():
    model = Around(lambda y: y, lambda block, x: block(torch.zeros_like(x), hidden_states=x))
    model.blocks = nn.ModuleList(Opaque(lambda y: y) for _ in range(8))
    dial, _ = found(model)

    assert disagreements(model, dial) == []


@pytest.mark.parametrize(
    ("returns", "calls", "reason"),
    [
        (lambda y: (y, y.mean()), lambda block, x: block(x)[0], "tuple of Tensor, Tensor"),
        (lambda y: (y, {}), lambda block, x: block(x)[0], "tuple of Tensor, dict"),
        (lambda y: {"y": y}, lambda block, x: block(x)["y"], "a dict"),
    ],
)
def test_a_block_that_returns_a_cache_or_another_state_is_left_alone(returns, calls, reason):
    dial, rejected = found(Around(returns, calls))

    assert dial is None
    assert all(f"it returns {reason}" in why for _, why in rejected)


def test_a_model_that_reads_what_its_blocks_left_behind_is_not_proven():
    class Noting(PreLN):
        def forward(self, x):
            y = super().forward(x)
            self.loss = y.square().mean()
            return y

    class Adding(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net(Noting)

        def forward(self, x):
            return self.net(x), sum(block.loss for block in self.net[1:-1])

    model = Adding()
    dial, _ = found(model)

    failed = disagreements(model, dial)

    assert len(failed) == 4
    assert all("AttributeError" in why for why in failed)
