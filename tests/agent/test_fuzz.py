"""Whatever is accepted in a random net is exact: for other inputs, in training, and in its gradients."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from greend_agent.plan import Call, make_plan

from .zoo import levels, oracle
from .zoo.random_nets import SHAPES, built, specs, trains
from .zoo.spec import Spec


def false_accepts(spec: Spec) -> list[str]:
    model = built(spec)
    if not trains(model, spec.inputs(0)):
        return []
    plan = make_plan(model, Call.of(*spec.inputs(0)), levels=4)
    inputs = [spec.inputs(1, batch=4, scale=3.0), spec.inputs(2, batch=2)]
    wrong = [
        text
        for counts in levels.levels_below(plan)
        for trained in (False, True)
        for text in oracle.broken_promises(model, plan.dials, counts, inputs, double=True, trained=trained)
    ]
    return wrong + levels.traces_of_levels(model, plan, spec.inputs(3))


def found_once(kind: str, *blocks: tuple[str, tuple[str, ...], bool], **options: object) -> Spec:
    return Spec(kind, 32, blocks, **options)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(specs())
@example(found_once("vector", ("ffn", ("count in training",), False)))
@example(found_once("vector", ("penalty", (), True), ("ffn", (), False)))
@example(found_once("vector", ("tied decoder", (), False)))
@example(found_once("image", ("tied decoder", (), False), ("mixture", ("batch norm",), False)))
@example(found_once("sequence", ("attention, asleep", (), True)))
def test_no_random_net_is_narrowed_wrongly(spec):
    assert not false_accepts(spec)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(specs())
def test_no_random_net_of_many_is_narrowed_wrongly(spec):
    assert not false_accepts(spec)


@pytest.mark.parametrize("shape", ["ffn", "glu", "fused glu", "two readers", "attention"])
@pytest.mark.parametrize("kind", ["vector", "sequence", "image", "signal"])
def test_the_fuzz_is_of_nets_in_which_there_is_something_to_find(kind, shape):
    if shape == "attention" and kind == "vector":
        pytest.skip("an attention over one place")
    spec = found_once(kind, (shape, (), True))
    model = built(spec)

    plan = make_plan(model, Call.of(*spec.inputs(0)), levels=4)

    assert any(dial.name.startswith("blocks.0.a") for dial in plan.dials), plan.report


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(SHAPES), st.sampled_from(["vector", "sequence", "image", "signal"]))
def test_each_shape_of_the_fuzz_is_a_net_that_trains(shape, kind):
    spec = found_once(kind, (shape, (), True))

    assert trains(built(spec), spec.inputs(0))
