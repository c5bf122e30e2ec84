"""What a step takes at each level, measured while the job runs."""

from __future__ import annotations

import pytest

import greend_agent
from greend.clock import NS
from greend_agent.signals import Order
from greend_agent.times import REMEMBERED, UNSETTLED, LevelFigures, Times

from .nets import OPTIMIZERS, batches, net, train

MS = NS // 1000


def made(*steps: tuple[int, int]) -> Times:
    """Steps, each of a level and of so many milliseconds."""
    times, now_ns = Times(), 5 * NS
    for level, took_ms in steps:
        now_ns += took_ms * MS
        times.stepped(level, now_ns)
    return times


def figures(times: Times) -> list[tuple[float | None, int]]:
    return [(row.step_s, row.steps) for row in times.table([0.5, 1.0], [])]


def test_the_median_of_a_level_is_known_once_it_has_settled():
    settling = [(0, 900)] * (1 + UNSETTLED)

    assert figures(made(*settling)) == [(None, 3), (None, 0)]
    assert figures(made(*settling, (0, 10))) == [(0.010, 4), (None, 0)]
    assert figures(made(*settling, (0, 10), (0, 12), (0, 11))) == [(0.011, 6), (None, 0)]


def test_steps_right_after_a_change_are_not_learned():
    steps = [(1, 20)] * 10 + [(0, 500), (0, 400), (0, 300), (0, 10), (0, 10)] + [(1, 700), (1, 600)]

    assert figures(made(*steps)) == [(0.010, 5), (0.020, 12)]


def test_an_evaluation_between_two_steps_does_not_move_it():
    assert figures(made(*[(1, 20)] * 10, (1, 60_000), *[(1, 20)] * 5))[1] == (0.020, 16)


def test_it_follows_a_job_that_becomes_slower():
    assert figures(made(*[(1, 20)] * 50, *[(1, 30)] * REMEMBERED))[1][0] == 0.030


def test_joules_are_those_that_were_said():
    table = made((0, 1)).table([0.25, 0.5, 1.0], (1.5, None))

    assert [row.step_j for row in table] == [1.5, None, None]
    assert table[0] == LevelFigures(0, 0.25, None, 1, 1.5)


def test_an_agents_table_has_a_row_for_each_level_and_what_was_measured_of_it():
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    agent = greend_agent.attach(model, optimizer)
    train(model, optimizer, batches(1))  # which is planned at
    train(model, optimizer, batches(5))
    agent.request(0)
    train(model, optimizer, batches(4))

    assert [row.cost for row in agent.table] == agent.costs
    assert [row.steps for row in agent.table] == [4, 0, 0, 5]
    assert [row.step_s is not None for row in agent.table] == [True, False, False, True]
    assert all(0 < row.step_s < 1 for row in (agent.table[0], agent.table[3]))
    agent.detach()
    assert len(agent.table) == 1


def test_what_the_pace_makes_a_loop_wait_is_not_a_steps_time():
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    agent = greend_agent.attach(model, optimizer)
    train(model, optimizer, batches(4))
    waited = iter(range(1, 100))

    def before_step(*_: object) -> Order:
        agent._loop.orders.pace.waited_ns = next(waited) * NS
        return agent._loop.orders.pace.order

    agent._loop.orders.pace.before_step = before_step  # type: ignore[method-assign]
    agent._loop.times = Times()
    train(model, optimizer, batches(6))

    # Each step is as long as the real one less the second that it is said to have waited.
    assert agent.table[-1].step_s == pytest.approx(-1.0, abs=0.5)
