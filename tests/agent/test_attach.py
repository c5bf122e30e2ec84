"""What an agent is to the rest of the process: what it leaves behind, and how it fails."""

from __future__ import annotations

import gc
import io
import pickle
import weakref

import pytest
import torch
from torch import nn

import greend_agent
from greend.choice import KNOBS
from greend_agent.plan import proposals
from greend_agent.signals import TOP

from .loops import backward, lowered
from .nets import HIDDEN, OPTIMIZERS, WIDTH, Block, batches, net, step, train


def test_a_pickled_model_asks_for_nothing_of_greend_when_it_is_loaded():
    model, optimizer, _ = lowered()
    train(model, optimizer, batches(1))
    modules: set[str] = set()

    class Noting(pickle.Unpickler):
        def find_class(self, module, name):
            modules.add(module)
            return super().find_class(module, name)

    loaded = Noting(io.BytesIO(pickle.dumps(model))).load()

    assert loaded(batches(1)[0]).shape == (8, 4)
    assert not {m for m in modules if m.startswith("greend")}


def test_an_optimizer_put_in_the_place_of_the_first_finds_a_whole_model_and_keeps_it():
    model, _, agent = lowered()
    second = OPTIMIZERS["adamw"](model.parameters())
    train(model, second, batches(3))

    assert [p.shape for p in model.parameters()] == [p.shape for p in net().parameters()]
    assert all(second.state[p]["exp_avg"].shape == p.shape for p in model.parameters())
    assert agent.costs == [1.0]
    assert "another optimizer" in agent.report()[0]


def test_an_optimizer_of_another_model_disturbs_nothing():
    model, optimizer, agent = lowered()
    other = net(seed=2)
    second = OPTIMIZERS["adamw"](other.parameters())
    for x in batches(3):
        backward(model, optimizer)
        step(other, second, x)
        optimizer.step()

    assert agent.level == 0
    assert len(agent.costs) == 4


def test_a_level_below_the_least_is_the_least():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    agent = greend_agent.attach(model, optimizer)
    train(model, optimizer, batches(2))

    agent._signals.ask(level=-3)
    train(model, optimizer, batches(1))

    assert (agent.want, agent.level) == (0, 0)
    assert len(agent.costs) == 4


def test_code_that_runs_in_training_only_and_counts_hidden_units_is_found_before_it_can_fail():
    class Noisy(Block):
        def forward(self, x):
            hidden = torch.relu(self.up(self.norm(x)))
            if self.training:
                hidden = hidden + torch.linspace(0, 0.1, HIDDEN)
            return x + self.down(hidden)

    model = nn.Sequential(Noisy(), Block(), nn.Linear(WIDTH, 4))
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = greend_agent.attach(model, optimizer)
    step(model, optimizer, batches(1)[0])
    agent.request(0)
    train(model, optimizer, batches(2))

    assert agent.level == 0
    assert agent.report()[0].startswith("proven: ffn: 1.up -> 1.down")
    assert any("0.up -> 0.down: narrowed, it raises" in line for line in agent.report())


def test_steps_made_before_attaching_are_counted():
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    train(model, optimizer, batches(5))
    agent = greend_agent.attach(model, optimizer, already=5)
    train(model, optimizer, batches(2))

    assert agent.step_count == 7


def test_a_second_attach_gives_the_same_agent_and_a_request_stays_within_the_levels():
    model, optimizer, agent = lowered()

    assert greend_agent.attach(model, optimizer) is agent
    agent.request(99)
    assert agent.want == 3
    agent.request(-4)
    assert agent.want == 0


def test_an_error_of_ours_never_reaches_the_loop(monkeypatch):
    model, optimizer, agent = lowered()
    monkeypatch.setattr("greend_agent.windows.window.WindowSet.apply", lambda self, level: 1 / 0)
    train(model, optimizer, batches(2))

    assert agent.report()[0] == "stays full: ZeroDivisionError: division by zero"
    assert agent.step_count == 3
    assert TOP > agent.want >= 0


def test_a_model_that_is_no_longer_needed_is_not_kept_alive():
    model, optimizer, agent = lowered()
    gone = weakref.ref(model), weakref.ref(agent)
    del model, optimizer, agent
    gc.collect()

    assert [reference() for reference in gone] == [None, None]


def test_a_checkpoint_in_mid_run_has_moments_that_are_up_to_date_for_the_top():
    model, optimizer, _ = lowered()
    train(model, optimizer, batches(30))
    moment = optimizer.state[model[0].up.weight]["exp_avg_sq"]
    outside = moment[16:].clone()
    saved = optimizer.state_dict()["state"][2]["exp_avg_sq"]

    assert saved.shape == (HIDDEN, WIDTH)
    assert bool((saved[16:] > outside).all())


def test_levels_and_knobs_are_chosen_in_attach():
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    agent = greend_agent.attach(model, optimizer, levels=[0.3, 0.6], knobs=["ffn"])
    train(model, optimizer, batches(2))
    assert [round(cost, 1) for cost in agent.costs] == [0.3, 0.6, 1.0]

    other = net()
    optimizer = OPTIMIZERS["sgd"](other.parameters())
    agent = greend_agent.attach(other, optimizer, knobs=["heads"])
    train(other, optimizer, batches(2))
    assert agent.costs == [1.0]


@pytest.mark.parametrize("choice", [{"levels": 0}, {"levels": [2.0]}, {"knobs": ["fnf"]}, {"knobs": "ffn"}])
def test_levels_and_knobs_that_there_are_not_are_refused_before_anything_is_touched(choice):
    model = net()
    with pytest.raises(ValueError, match=next(iter(choice))):
        greend_agent.attach(model, OPTIMIZERS["sgd"](model.parameters()), **choice)

    assert not model._forward_pre_hooks


def test_the_knobs_that_can_be_chosen_are_those_that_there_are():
    assert set(KNOBS) == proposals.WIDTHS | set(proposals._OTHERS)
