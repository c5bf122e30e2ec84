"""What Adam's second moment has missed is made up when a window opens; a run never lowered is untouched."""

from __future__ import annotations

import pytest
import torch

import greend_agent
from greend_agent.moments import missing_share

from .nets import HIDDEN, batches, net, step, train


def opened_update(make_up: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """Run long at level 0, open the windows; the mean first update of the opened and of the live entries."""
    if not make_up:
        monkeypatch.setattr("greend_agent.moments.Arrears.settle", lambda *args: None)
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0)
    agent = greend_agent.attach(model, optimizer)
    widths: list[int] = []
    model[0].up.register_forward_hook(lambda module, args, out: widths.append(module.weight.shape[0]))
    agent.request(0)
    train(model, optimizer, batches(400))
    live = widths[-1]
    weight = model[0].up.weight
    before = weight.detach().clone()
    agent.request(3)
    step(model, optimizer, batches(1, seed=8)[0])
    moved = (weight.detach() - before).abs()
    return float(moved[live:].mean()), float(moved[:live].mean())


def test_the_first_update_of_opened_weights_is_of_the_order_of_the_live_ones(monkeypatch):
    opened, live = opened_update(True, monkeypatch)

    assert opened < 4 * live


def test_without_it_the_first_update_explodes(monkeypatch):
    opened, live = opened_update(False, monkeypatch)

    assert opened > 4 * live


@pytest.mark.parametrize(
    ("steps", "missed", "decay", "share"),
    [
        (100, 0, 0.9, 0.0),
        (0, 5, 0.9, 0.0),
        (1000, 1000, 0.999, 1.0),
        (100, 50, 1.0, 0.5),
        (2, 1, 0.5, (0.5 - 0.25) / (1 - 0.25)),
    ],
)
def test_how_much_of_a_moment_an_entry_lacks(steps, missed, decay, share):
    assert missing_share(steps, missed, decay) == pytest.approx(share)


class OneTensorForAll(torch.optim.SGD):
    """Keeps a factor of a moment, as Adafactor does."""

    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["row"] = torch.zeros(p.shape[0] + 1)


@pytest.mark.parametrize("kind", ["factored", "lbfgs"])
def test_an_optimizer_whose_state_has_no_place_for_windows_keeps_the_model_full_and_says_why(kind):
    model = net()
    if kind == "factored":
        optimizer: torch.optim.Optimizer = OneTensorForAll(model.parameters(), lr=0.1)
        train_one = lambda x: step(model, optimizer, x)  # noqa: E731 - one of two ways to step
    else:
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)

        def train_one(x):
            def closure():
                optimizer.zero_grad()
                loss = model(x).square().mean()
                loss.backward()
                return loss

            optimizer.step(closure)

    agent = greend_agent.attach(model, optimizer)
    for x in batches(3):
        train_one(x)
        agent.request(0)

    assert agent.costs == [1.0]
    assert agent.report()[0].startswith("stays full:")
    assert "state" in agent.report()[0]
    assert model[0].up.weight.shape[0] == HIDDEN
