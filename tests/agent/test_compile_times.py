"""A level is compiled when the steps that are left save more than that costs."""

from __future__ import annotations

import pytest

from greend.clock import NS
from greend_agent.engines.compile_times import CompileTimes, pays

COSTS = (0.25, 0.5, 0.75, 1.0)


@pytest.mark.parametrize(
    ("compile_s", "step_s", "cost", "left", "expected"),
    [
        (20.0, 0.1, 0.25, 1000, True),  # saves 75 s
        (20.0, 0.1, 0.25, 267, True),
        (20.0, 0.1, 0.25, 266, False),
        (20.0, 0.1, 0.75, 266, False),
        (20.0, 0.1, 0.25, 0, False),
        (0.0, 0.1, 0.25, 1, True),
        (20.0, 0.1, 1.0, 10**9, False),  # costs as much as the top
    ],
)
def test_seconds_of_compiling_against_seconds_saved(compile_s, step_s, cost, left, expected):
    assert pays(compile_s, step_s, cost, left) is expected


class Run:
    """A run whose steps take as long as they are said to."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.times = CompileTimes(lambda: int(self.now_s * NS))

    def step(self, below: int, seconds: float, times: int = 1) -> None:
        for _ in range(times):
            self.times.began(below)
            self.now_s += seconds
            self.times.stepped()


def test_as_long_as_no_compiling_has_been_seen_the_wanted_level_is_compiled():
    run = Run()
    assert run.times.level(0, COSTS, 1) == 0
    run.step(below=0, seconds=20.0)
    assert run.times.compile_s is None
    assert run.times.level(0, COSTS, 1) == 0


def test_with_few_steps_left_the_next_level_above_that_is_compiled_takes_its_place():
    run = Run()
    run.step(below=0, seconds=20.0)
    run.step(below=0, seconds=0.1, times=9)
    assert run.times.compile_s == pytest.approx(19.9)

    assert run.times.level(0, COSTS, left=1000) == 0
    assert run.times.level(0, COSTS, left=100) == 3
    run.times.warmed(below=2)
    assert run.times.level(0, COSTS, left=100) == 1
    assert run.times.level(1, COSTS, left=0) == 1
    assert run.times.level(2, COSTS, left=100) == 3
    assert run.times.level(3, COSTS, left=0) == 3


def test_where_nobody_knows_the_end_a_run_is_expected_to_last_as_long_again():
    run = Run()
    run.step(below=0, seconds=20.0)
    run.step(below=0, seconds=0.1, times=264)
    assert run.times.level(0, COSTS, left=None) == 3
    run.step(below=0, seconds=0.1, times=2)
    assert run.times.level(0, COSTS, left=None) == 0


def test_a_model_that_was_compiled_before_it_was_attached_makes_the_first_level_the_measure():
    run = Run()
    run.step(below=0, seconds=0.1, times=10)
    assert run.times.level(0, COSTS, left=100) == 0
    run.step(below=3, seconds=20.0)
    run.step(below=3, seconds=0.03)
    assert run.times.level(1, COSTS, left=100) == 3
