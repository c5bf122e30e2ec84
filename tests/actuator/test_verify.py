"""A cap is believed when the energy counter says so."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.actuator.verify import CapCheck, grown


def after(check: CapCheck, power_w: float, seconds: int) -> CapCheck:
    for _ in range(seconds):
        check = check.observe(power_w, 1.0)
    return check


@pytest.mark.parametrize(
    ("power_w", "words"),
    [
        (121, "cap of 100 W not honoured by device, floor is 121 W"),
        (103.5, "cap of 100 W not honoured by device, floor is 103.5 W"),
        (102.9, ""),
        (60, ""),
    ],
)
def test_more_than_three_per_cent_above_is_not_honoured(power_w, words):
    assert after(CapCheck.of(100, None), power_w, 8).words() == words


def test_nothing_is_said_before_three_windows_have_passed():
    assert after(CapCheck.of(100, None), 200, 7).words() == ""


def test_the_device_has_its_own_window_to_settle_in():
    check = after(CapCheck.of(100, 28.0), 250, 28)
    check = after(check, 95, 3 * 28)

    assert check.words() == ""


def test_a_device_that_obeys_later_is_believed_again():
    check = after(CapCheck.of(100, None), 150, 8)
    assert check.words()

    assert after(check, 99, 6).words() == ""


@given(st.floats(0, 1e5), st.floats(0, 9e4))
def test_a_counter_that_wraps_grows_by_what_it_grew(then_j, more_j):
    wraps_j = 1e5
    now_j = (then_j + more_j) % wraps_j

    assert grown((then_j, wraps_j), (now_j, wraps_j)) == pytest.approx(more_j, abs=1e-6)


def test_a_counter_that_was_reset_has_not_grown():
    assert grown((500.0, math.inf), (3.0, math.inf)) == 0.0
