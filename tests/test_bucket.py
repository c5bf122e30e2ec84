"""The token bucket: the bound that its docstring derives, over every window."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.bucket import Bucket

STEPS = st.lists(
    st.tuples(
        st.floats(0.0, 300.0).map(lambda joules: round(joules, 3)),
        st.floats(0.001, 5.0).map(lambda seconds: round(seconds, 3)),
        st.sampled_from([0.0, 0.0, 0.0, 0.2, 30.0]),
    ),
    min_size=1,
    max_size=25,
)
"""Joules and seconds of each step, and how long something else held it up before."""


def run(
    steps, rate: float, burst: float, debt: float = 300.0, told: float = 1.0
) -> list[tuple[float, float]]:
    """Make the steps as the bucket lets them, and return (seconds, joules used so far) where either bends."""
    bucket = Bucket(rate, burst, debt, 0.0)
    now_s, used_j, curve = 0.0, 0.0, [(0.0, 0.0)]
    for step_j, step_s, held_up_s in steps:
        now_s += held_up_s
        now_s += bucket.wait_s(now_s)
        curve.append((now_s, used_j))
        now_s, used_j = now_s + step_s, used_j + step_j
        bucket.spent(step_j * told, now_s)
        curve.append((now_s, used_j))
    return curve


def excess(curve, rate: float) -> float:
    """Return the most by which any window used more than the rate carries: from one bend to another."""
    return max((j1 - j0) - rate * (t1 - t0) for (t0, j0), (t1, j1) in combinations(curve, 2))


@given(STEPS, st.floats(1.0, 500.0), st.floats(0.0, 400.0))
def test_no_window_uses_more_than_its_rate_and_a_burst_and_a_step(steps, rate, burst):
    most_j = max(step_j for step_j, _, _ in steps)

    assert excess(run(steps, rate, burst), rate) <= burst + most_j + 1e-6


@given(STEPS, st.floats(1.0, 500.0), st.floats(0.0, 400.0), st.floats(0.5, 1.0))
def test_where_a_step_is_said_to_cost_less_than_it_does_the_bound_grows_by_the_same_factor(
    steps, rate, burst, told
):
    most_j = max(step_j for step_j, _, _ in steps)

    assert excess(run(steps, rate, burst, told=told), rate / told) <= burst / told + most_j + 1e-6


def test_the_bound_is_reached_so_that_a_lower_one_would_be_wrong():
    steps = [(0.0, 0.001, 0.0), (60.0, 0.001, 10.0), (60.0, 0.001, 0.0)]

    assert excess(run(steps, rate=10.0, burst=60.0), 10.0) == pytest.approx(60.0 + 60.0, abs=0.1)


@pytest.mark.parametrize("step_s", [0.01, 0.5, 1.0])
@pytest.mark.parametrize("burst", [0.0, 2.0, 500.0])
def test_a_loop_that_could_run_faster_uses_the_whole_rate(step_s, burst):
    curve = run([(150.0 * step_s, step_s, 0.0)] * 2000, rate=100.0, burst=burst, debt=500.0)

    (begin_s, begin_j), (end_s, end_j) = curve[2], curve[-1]
    assert (end_j - begin_j) / (end_s - begin_s) == pytest.approx(100.0, rel=0.002)


@given(
    st.lists(st.tuples(st.floats(0.1, 50.0), st.floats(5.0, 200.0)), min_size=2, max_size=20),
    st.floats(0.0, 100.0),
)
def test_a_change_of_rate_forgives_nothing_that_is_owed(steps, burst):
    bucket = Bucket(100.0, burst, 100.0, 0.0)
    now_s, used_j, allowed_j = 0.0, 0.0, 0.0
    for step_j, rate in steps:
        bucket.change(rate, burst, 100.0, now_s)
        wait_s = bucket.wait_s(now_s)
        now_s, allowed_j = now_s + wait_s, allowed_j + wait_s * rate
        bucket.spent(step_j, now_s)
        used_j += step_j

    assert used_j <= allowed_j + max(step_j for step_j, _ in steps) + 1e-6


def test_what_is_held_shrinks_to_a_smaller_burst():
    bucket = Bucket(rate=10.0, burst=50.0, debt=50.0, now_s=0.0)
    bucket.change(10.0, 5.0, 50.0, now_s=100.0)
    bucket.spent(12.0, now_s=100.0)

    assert bucket.wait_s(100.0) == pytest.approx(0.7)


def test_what_a_bucket_saves_while_nothing_is_spent_is_not_more_than_a_burst():
    bucket = Bucket(rate=10.0, burst=5.0, debt=50.0, now_s=0.0)
    bucket.spent(0.0, now_s=1000.0)
    bucket.spent(12.0, now_s=1000.0)

    assert bucket.wait_s(1000.0) == pytest.approx((12.0 - 5.0) / 10.0)
    assert bucket.wait_s(1000.7) == pytest.approx(0.0)


def test_a_bucket_is_owed_no_more_than_a_debt():
    bucket = Bucket(rate=10.0, burst=5.0, debt=50.0, now_s=0.0)
    bucket.spent(1e9, now_s=0.0)

    assert bucket.wait_s(0.0) == pytest.approx(5.0)
