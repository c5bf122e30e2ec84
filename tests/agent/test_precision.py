"""Half precision where it is measured to be faster, and only there."""

from __future__ import annotations

import collections

import pytest
import torch
from torch import nn

import greend_agent
from greend_agent.knobs import precision
from greend_agent.plan.probe import Call, undisturbed
from greend_agent.plan.trial import turned_down

from .nets import WIDTH, batches, net


class Clock:
    """Goes on by what the test says a forward and backward takes, in turn: whole, half, whole, half."""

    def __init__(self, whole_s: float, half_s: float) -> None:
        self.took_s = [whole_s, half_s]
        self.now_s, self.asked = 0.0, 0

    def __call__(self) -> float:
        if self.asked % 2:
            self.now_s += self.took_s[self.asked // 2 % 2]
        self.asked += 1
        return self.now_s


def find(model: nn.Module, clock: Clock, x: torch.Tensor | None = None):
    call = Call.of((batches(1)[0] if x is None else x,), {})
    with undisturbed(model, call) as run:
        return precision.find(model, call, run, clock=clock)


def dial_of(model: nn.Module) -> precision.Precision:
    (dial,), rejected = find(model, Clock(2.0, 1.0))
    assert rejected == []
    return dial


def test_it_is_used_where_it_is_faster_and_its_share_is_the_measured_one():
    dial = dial_of(net())

    assert dial.share(1, dial.model) == pytest.approx(0.5)
    assert dial.share(2, dial.model) == 1.0
    assert [dial.count(fraction, 4) for fraction in (0.1, 0.9, 1.0)] == [1, 1, 2]


@pytest.mark.parametrize("half_s", [1.96, 2.0, 9.0])
def test_where_it_is_not_it_is_rejected_with_the_ratio(half_s):
    dials, ((name, reason),) = find(net(), Clock(2.0, half_s))

    assert dials == []
    assert name == "precision"
    assert f"bfloat16 takes {half_s / 2:.2f} times as long" in reason


def test_products_are_in_half_precision_and_outputs_weights_and_gradients_are_not():
    model = net()
    dial = dial_of(model)
    seen: list[torch.dtype] = []
    model[0].up.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    with turned_down(dial, 1):
        output = model(batches(1)[0])
    output.square().mean().backward()

    assert seen == [torch.bfloat16]
    assert output.dtype == torch.float32
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}
    assert torch.allclose(output, model(batches(1)[0]), atol=0.05)


def test_outputs_in_any_structure_get_their_own_types_back():
    Pair = collections.namedtuple("Pair", "a b")

    class Many(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(WIDTH, 4)

        def forward(self, x):
            y = self.layer(x)
            return {"pair": Pair(y, [y.argmax(-1), None]), "half": y.bfloat16(), "n": 3}

    model = Many()
    whole = model(batches(1)[0])
    with turned_down(dial_of(model), 1):
        half = model(batches(1)[0])

    assert type(half["pair"]) is Pair
    assert half["pair"].a.dtype == torch.float32
    assert half["pair"].b[0].dtype == torch.int64
    assert half["pair"].b[1] is None
    assert half["half"].dtype == whole["half"].dtype == torch.bfloat16
    assert half["n"] == 3


def test_under_autocast_of_the_users_own_it_does_nothing():
    model = net()
    dial = dial_of(model)
    with torch.autocast("cpu", torch.bfloat16):
        own = model(batches(1)[0])
        with turned_down(dial, 1):
            meanwhile = model(batches(1)[0])

    assert meanwhile.dtype == own.dtype == torch.bfloat16
    assert torch.equal(meanwhile, own)


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(WIDTH, 8), nn.BatchNorm1d(8)

    def forward(self, x):
        return self.norm(self.layer(x))


def test_measuring_leaves_buffers_gradients_and_random_numbers_as_they_were():
    model = nn.Sequential(Norm(), nn.Dropout(0.5))
    model(batches(1)[0]).sum().backward()
    before = [t.clone() for t in model.state_dict().values()]
    gradients = [p.grad.clone() for p in model.parameters()]
    state = torch.get_rng_state()
    dial_of(model)

    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, model.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_hook_on_a_gradient_is_not_called_by_measuring_and_says_no():
    model, called = net(), []
    model[0].up.weight.register_hook(called.append)

    assert "hooks on its gradients" in find(model, Clock(2.0, 1.0))[1][0][1]
    assert called == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_what_is_not_in_single_precision_is_left_as_it_is(dtype):
    model = net().to(dtype)

    assert "not all in single precision" in find(model, Clock(2.0, 1.0), batches(1)[0].to(dtype))[1][0][1]


def test_attached_it_is_measured_for_real_and_either_used_or_rejected():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    agent = greend_agent.attach(model, optimizer, knobs=["precision"])
    for x in batches(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    report = "\n".join(agent.report())
    assert "proven: precision: forward, 2" in report or "times as long here as single precision" in report
