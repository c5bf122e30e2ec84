"""What a device does with work, by table."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.simulation.device import Device, Heat
from greend.simulation.workload import Contention, Workload

DEVICE = Device(idle_w=60.0, saturated_w=300.0, least_limit_w=100.0)


@pytest.mark.parametrize(
    ("dynamic_j", "least_s", "limit_w", "seconds"),
    [
        (240.0, 0.0, math.inf, 1.0),
        (120.0, 0.0, math.inf, 0.5),
        (120.0, 0.8, math.inf, 0.8),
        (240.0, 0.0, 180.0, 2.0),
        (240.0, 0.0, 50.0, 6.0),
        (240.0, 0.0, 500.0, 1.0),
    ],
    ids=["saturated", "half the work", "fed too slowly", "limited", "below the floor", "limit above"],
)
def test_work_takes_its_time(dynamic_j, least_s, limit_w, seconds):
    assert DEVICE.seconds(dynamic_j, least_s, limit_w) == pytest.approx(seconds)


def test_a_device_that_ignores_its_limit_stays_as_fast():
    deaf = Device(obeys=False)

    assert deaf.power_w(120.0) == deaf.saturated_w
    assert Device().power_w(120.0) == 120.0


@pytest.mark.parametrize("idle_w", [-1.0, 100.0, 400.0])
def test_a_device_that_idles_above_its_least_limit_is_refused(idle_w):
    with pytest.raises(ValueError, match="0 <= idle"):
        Device(idle_w=idle_w)


@given(st.floats(1.0, 1e4), st.floats(61.0, 1e3))
def test_a_saturated_step_uses_what_it_was_made_for(step_j, saturated_w):
    device = Device(idle_w=60.0, saturated_w=saturated_w)
    work = Workload.of(device, [step_j], steps=10, quality=[1.0])

    assert work.step_j(device, 0) == pytest.approx(step_j)


def test_on_a_saturated_device_a_smaller_level_saves_seconds_and_no_watts():
    work = Workload.of(DEVICE, [90.0, 300.0], steps=10, quality=[0.5, 1.0])
    seconds = [DEVICE.seconds(dynamic_j) for dynamic_j in work.dynamic_j]

    assert seconds == pytest.approx([0.3, 1.0])
    assert [work.step_j(DEVICE, k) / seconds[k] for k in (0, 1)] == pytest.approx([300.0, 300.0])


def test_on_an_unsaturated_one_it_saves_watts_down_to_the_idle_joules_of_its_time():
    work = Workload.of(DEVICE, [30.0, 90.0], 10, [0.5, 1.0], least_step_s=(1.0, 1.0))

    assert [work.step_j(DEVICE, k) for k in (0, 1)] == pytest.approx([84.0, 132.0])


def test_drift_and_contention_have_their_stretch_of_the_steps():
    work = Workload.of(
        DEVICE, [300.0], 100, [1.0], drift=0.5, drift_at=0.5, contention=(Contention(0.2, 0.4, 2.0),)
    )

    assert [work.step_j(DEVICE, 0, step) for step in (0, 20, 39, 40, 50)] == pytest.approx(
        [300.0, 360.0, 360.0, 300.0, 450.0]
    )
    assert work.step_j(DEVICE, 0, 20, disturbed=False) == pytest.approx(300.0)


def test_heat_settles_where_its_resistance_says():
    heat = Heat(ambient_c=20.0, kelvin_per_w=0.1, time_constant_s=10.0)

    assert heat.after(20.0, 300.0, 10.0) == pytest.approx(20 + 30 * (1 - math.exp(-1)))
    assert heat.after(20.0, 300.0, 1000.0) == pytest.approx(50.0)
