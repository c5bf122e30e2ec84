"""The counter of a simulated device: what it hides, and what is not lost by it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.simulation.meter import Counter, Meter


def steady(meter: Meter, power_w: float = 100.0, seconds: int = 60) -> list[float]:
    """What a counter that is read once a second grows by each time."""
    counter, grown = Counter(meter), []
    for second in range(1, seconds + 1):
        counter.note(float(second), power_w * second)
        grown.append(counter.increase_j(float(second)))
    return grown


def test_a_perfect_meter_shows_all_at_once():
    assert steady(Meter()) == pytest.approx([100.0] * 60)


def test_a_late_meter_shows_the_same_later():
    grown = steady(Meter(lag_s=0.5))

    assert grown[0] == pytest.approx(50.0)
    assert grown[1:] == pytest.approx([100.0] * 59)


def test_a_slow_meter_moves_in_steps():
    assert steady(Meter(period_s=2.0), seconds=4) == pytest.approx([0.0, 200.0, 0.0, 200.0])


def test_quanta_are_not_lost():
    grown = steady(Meter(quantum_j=7.0))

    assert all(joules % 7 == pytest.approx(0.0, abs=1e-9) for joules in grown)
    assert sum(grown) == pytest.approx(6000.0, abs=7.0)


def test_a_frozen_meter_gives_back_what_it_hid():
    grown = steady(Meter(frozen=((10.0, 20.0),)))

    assert grown[10:18] == [0.0] * 8
    assert sum(grown) == pytest.approx(6000.0)


@given(
    st.lists(st.floats(0.0, 250.0), min_size=1, max_size=50),
    st.floats(0.0, 0.9),
    st.sampled_from([300.0, 1000.0]),
)
def test_a_wrap_between_two_reads_is_no_loss(powers_w, lag_s, wraps_at_j):
    counter, used_j, grown_j = Counter(Meter(lag_s=lag_s, wraps_at_j=wraps_at_j)), 0.0, 0.0
    for second, power_w in enumerate([*powers_w, 0.0, 0.0], start=1):
        used_j += power_w
        counter.note(float(second), used_j)
        grown_j += counter.increase_j(float(second))

    assert grown_j == pytest.approx(used_j, abs=1e-6)
