"""Unmodified models of many families: what is converted keeps every promise, checked beside the planner."""

from __future__ import annotations

import copy

import pytest
import torch

from greend_agent.plan import Call, Plan, make_plan

from .zoo import FAMILIES, Family, levels, oracle

CONVERTIBLE = [family for family in FAMILIES if family.knobs]


def planned(family: Family) -> tuple[torch.nn.Module, Plan]:
    model = family.model()
    return model, make_plan(model, Call.of(*family.inputs(0)), levels=4, trained=list(model.parameters()))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_is_narrowed_as_promised_and_comes_back_bit_for_bit(family):
    model, plan = planned(family)

    assert family.knobs <= {dial.knob for dial in plan.dials}, "\n".join(plan.report)
    # Inputs, batch sizes, a level and weights that the planner has not seen.
    inputs = [family.inputs(1), family.inputs(2)]
    if plan.dials:
        least, quarter = plan.table.counts[0], levels.quarter(plan.dials)
        assert not oracle.broken_promises(model, plan.dials, least, inputs)
        assert not oracle.broken_promises(
            model, plan.dials, quarter, inputs[:1], trained=True, double=family.double
        )
    assert not levels.traces_of_levels(model, plan, family.inputs(3))
    assert not levels.moved_though_inactive(model, plan, family.inputs(0))


@pytest.mark.parametrize("family", CONVERTIBLE, ids=lambda family: family.name)
def test_planning_leaves_no_trace_in_a_family(family):
    model = family.model()
    before = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()

    make_plan(model, Call.of(*family.inputs(0)), levels=4)

    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("family", CONVERTIBLE, ids=lambda family: family.name)
def test_the_cost_of_a_level_is_what_torch_counts(family):
    model, plan = planned(family)

    for counts, cost in zip(plan.table.counts[:-1], plan.table.costs, strict=False):
        measured = levels.flops_at(model, plan.dials, counts, family.inputs(0))
        assert measured == pytest.approx(cost, abs=0.03)
