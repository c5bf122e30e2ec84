"""What Adam's second moment has missed is made up when a window opens; a run never lowered is untouched."""

from __future__ import annotations

import pytest
import torch

import greend_agent
from greend_agent import refusals
from greend_agent.windows.moments import Arrears, missing_share

from .nets import HIDDEN, OPTIMIZERS, batches, net, step, train


def opened_update(make_up: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """Run long at level 0, open the windows; the mean first update of the opened and of the live entries."""
    if not make_up:
        monkeypatch.setattr("greend_agent.windows.moments.Arrears.settle", lambda *args: None)
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

    assert opened > 10 * live


def moments(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [
        value.clone()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_run_never_lowered_has_the_optimizer_state_of_a_run_without_greend(kind):
    def run(with_greend: bool) -> list[torch.Tensor]:
        model = net(drop=0.2)
        optimizer = OPTIMIZERS[kind](model.parameters())
        if with_greend:
            greend_agent.attach(model, optimizer)
        torch.manual_seed(7)
        for x in batches(8):
            step(model, optimizer, x)
            optimizer.state_dict()  # which would bring moments up to date
        return moments(optimizer)

    assert all(torch.equal(a, b) for a, b in zip(run(True), run(False), strict=True))


def test_opened_entries_get_the_mean_of_the_live_ones_and_these_keep_theirs():
    param = torch.nn.Parameter(torch.ones(4, 2))
    optimizer = torch.optim.Adam([param], betas=(0.9, 0.999))
    moment = torch.zeros(4, 2)
    moment[:2] = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    optimizer.state[param] = {"step": torch.tensor(50.0), "exp_avg": moment.clone(), "exp_avg_sq": moment}
    arrears = Arrears(2)
    for _ in range(50):
        arrears.stepped(0)

    assert arrears.due(1)
    arrears.settle(optimizer, [(param, ((slice(0, 2), slice(0, 2)), None))], 1)

    assert moment.tolist() == [[1, 2], [3, 6], [3, 3], [3, 3]]
    assert not optimizer.state[param]["exp_avg"][2:].any()  # a first moment starts at nothing
    assert not arrears.due(1)


@pytest.mark.parametrize(
    ("kind", "decay"),
    [
        (lambda p: torch.optim.Adam(p, betas=(0.9, 0.99)), 0.99),
        (lambda p: torch.optim.RMSprop(p, alpha=0.95), 0.95),
        (lambda p: torch.optim.Adadelta(p, rho=0.8), 0.8),
        (lambda p: torch.optim.Adagrad(p), 1.0),
    ],
    ids=["adam", "rmsprop", "adadelta", "adagrad"],
)
def test_what_a_moment_lacks_goes_by_its_own_decay(kind, decay):
    param = torch.nn.Parameter(torch.ones(4))
    optimizer = kind([param])
    name = "exp_avg_sq" if decay == 0.99 else "sum" if decay == 1.0 else "square_avg"
    optimizer.state[param] = {"step": torch.tensor(10.0), name: torch.tensor([1.0, 1.0, 0.0, 0.0])}
    arrears = Arrears(2)
    for level in (1, 1, 1, 1, 0, 0, 0, 0, 0, 0):  # four updates of their own, long ago
        arrears.stepped(level)
    arrears.settle(optimizer, [(param, ((slice(0, 2),), None))], 1)

    assert optimizer.state[param][name][2:].tolist() == pytest.approx([missing_share(10, 6, decay)] * 2)


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


@pytest.mark.parametrize("kind", ["factored", "adafactor", "lbfgs"])
def test_an_optimizer_whose_state_has_no_place_for_windows_keeps_the_model_full_and_says_why(kind):
    model = net()
    if kind != "lbfgs":
        adafactor = getattr(torch.optim, "Adafactor", None) or pytest.skip("this torch has no Adafactor")
        made = OneTensorForAll if kind == "factored" else adafactor
        optimizer: torch.optim.Optimizer = made(model.parameters(), lr=0.1)
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


def adafactor() -> torch.optim.Optimizer:
    made = getattr(torch.optim, "Adafactor", None) or pytest.skip("this torch has no Adafactor")
    return made(net().parameters())


@pytest.mark.parametrize(
    ("make", "windows", "sitting_out"),
    [
        (lambda: torch.optim.AdamW(net().parameters()), True, True),
        (adafactor, False, True),
        (lambda: torch.optim.LBFGS(net().parameters()), False, False),
    ],
    ids=["adamw", "adafactor", "lbfgs"],
)
def test_an_optimizer_may_allow_blocks_to_be_skipped_though_nothing_to_be_narrowed(
    make, windows, sitting_out
):
    optimizer = make()
    for p in (p for group in optimizer.param_groups for p in group["params"]):
        p.grad = torch.ones_like(p)
    optimizer.step(lambda: torch.tensor(1.0))

    assert (refusals.of_optimizer(optimizer) is None) is windows
    assert (refusals.of_sitting_out(optimizer) is None) is sitting_out


def test_a_ring_between_gathered_windows_gets_the_moment_of_the_live_ones():
    param = torch.nn.Parameter(torch.ones(6))
    optimizer = torch.optim.Adam([param])
    moment = torch.tensor([2.0, 0, 0, 4.0, 0, 0])
    optimizer.state[param] = {"step": torch.tensor(9.0), "exp_avg_sq": moment}
    arrears = Arrears(3)
    for _ in range(9):
        arrears.stepped(0)
    indices = ((torch.tensor([0, 3]),), (torch.tensor([0, 1, 3, 4]),), None)
    arrears.settle(optimizer, [(param, indices)], 1)
    assert moment.tolist() == [2, 3, 0, 4, 3, 0]
    arrears.settle(optimizer, [(param, indices)], 2)

    assert moment[[0, 1, 3, 4]].tolist() == [2, 3, 4, 3]
    assert moment[[2, 5]].tolist() == [3, 3]


def test_a_ring_around_a_cropped_kernel_gets_the_moment_of_the_middle():
    param = torch.nn.Parameter(torch.ones(1, 1, 5, 5))
    optimizer = torch.optim.Adam([param])
    moment = torch.zeros(1, 1, 5, 5)
    moment[..., 1:4, 1:4] = 2.0
    optimizer.state[param] = {"step": torch.tensor(9.0), "exp_avg_sq": moment}
    arrears = Arrears(2)
    for _ in range(9):
        arrears.stepped(0)
    middle = (slice(0, 1), slice(0, 1), slice(1, 4), slice(1, 4))
    arrears.settle(optimizer, [(param, (middle, None))], 1)

    assert bool((moment == 2).all())
