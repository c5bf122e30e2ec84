"""Planning runs the model of a training job: afterwards nothing of that can be seen."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from greend_agent.plan import Call, make_plan

from .middles import FFN, D, X, plan_of


def test_planning_leaves_no_trace():
    model = nn.Sequential(nn.BatchNorm1d(D), FFN(nn.GELU), nn.Dropout(0.5))
    model[2].eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    attributes = [{k: v for k, v in vars(m).items() if not k.startswith("_")} for m in model.modules()]
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    numbers = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()

    make_plan(model, Call.of((X,), {}), levels=4)

    assert np.random.get_state()[1].tolist() == numbers[2]
    assert [
        {k: v for k, v in vars(m).items() if not k.startswith("_")} for m in model.modules()
    ] == attributes
    assert not any(p.grad is not None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), numbers[0])
    assert random.getstate() == numbers[1]


def test_what_a_model_notes_of_itself_as_it_runs_is_as_before_too():
    class Noting(FFN):
        def __init__(self):
            super().__init__(nn.GELU)
            self.losses, self.seen, self.count = [], {}, 0

        def forward(self, x):
            self.count += 1
            self.losses.append(x.sum())
            self.seen[self.count] = x
            self.latest = x
            return super().forward(x)

    model = Noting()
    model(X)
    losses, seen, latest, kept = model.losses, model.seen, model.latest, list(model.losses)

    plan = plan_of(model)

    assert len(plan.dials) == 1
    assert model.losses is losses and len(losses) == 1 and losses[0] is kept[0]
    assert model.seen is seen and list(seen) == [1]
    assert (model.count, model.latest is latest) == (1, True)


def test_a_call_that_is_kept_for_the_probe_shares_nothing_with_the_script():
    x, mask = torch.ones(2, D), torch.ones(2, requires_grad=True)
    call = Call.of((x, [x], 3), {"mask": mask, "more": {"x": (x,)}})
    x.zero_()

    assert bool(call.args[0].all()) and bool(call.args[1][0].all()) and call.args[2] == 3
    assert bool(call.kwargs["more"]["x"][0].all())
    assert call.kwargs["mask"] is not mask and call.kwargs["mask"].requires_grad


def test_a_model_that_raises_in_the_probe_is_given_back_as_it_was():
    class Moody(FFN):
        def forward(self, x):
            if not self.training:
                raise RuntimeError("not now")
            return super().forward(x)

    model = Moody(nn.GELU).train()

    with pytest.raises(RuntimeError, match="not now"):
        plan_of(model)

    assert all(m.training for m in model.modules())
    assert not any(m._forward_hooks for m in model.modules())
