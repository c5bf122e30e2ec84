"""A simulated job: its books, its switches, its waits, and what it does when told to."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.simulation.device import Device, Heat
from greend.simulation.plant import Plant
from greend.simulation.workload import Workload
from greend.wire import Directive

DEVICE = Device(idle_w=60.0, saturated_w=300.0)


def workload(steps: int = 50, **more: object) -> Workload:
    return Workload.of(DEVICE, [90.0, 300.0], steps, [0.4, 1.0], **{"noise": 0.0, **more})


def plant(steps: int = 50, device: Device = DEVICE, seed: int = 0, **more: object) -> Plant:
    return Plant(workload(steps, **more), device, seed=seed)


def to(level: int, seq: int = 1, **more: object) -> Directive:
    return Directive(seq, level, "", 30.0, **more)


def test_a_job_left_alone_makes_all_its_steps_at_the_top():
    job = plant(startup_j=40.0, startup_s=2.0, tail_j=10.0, tail_s=1.0)
    job.advance(1000.0)

    assert (job.done, job.steps, job.steps_at, job.quality) == (True, 50, [0, 50], 50.0)
    assert job.energy_j == pytest.approx(40 + 50 * 300 + 10)
    assert job.now_s == pytest.approx(2 + 50 + 1)


def test_the_same_seed_is_the_same_job_and_another_one_is_not():
    runs = [plant(seed=seed, noise=0.1) for seed in (1, 1, 2)]
    for job in runs:
        job.advance(1000.0)

    assert runs[0].energy_j == runs[1].energy_j != runs[2].energy_j


@given(st.lists(st.floats(0.01, 5.0), min_size=1, max_size=40))
def test_how_time_is_cut_changes_nothing(slices):
    whole, cut = plant(noise=0.1, seed=3), plant(noise=0.1, seed=3)
    for seconds in slices:
        cut.advance(seconds)
    whole.advance(sum(slices))

    assert (cut.steps, cut.done) == (whole.steps, whole.done)
    assert cut.energy_j == pytest.approx(whole.energy_j)


def test_a_level_is_taken_between_steps_and_costs_a_switch():
    job = plant(switch_j=600.0, switch_s=4.0)
    job.obey(to(0), at_s=1.5)
    job.advance(6.0)

    assert (job.steps_at, job.level, job.switches) == ([0, 2], 0, 1)
    assert job.energy_j == pytest.approx(2 * 300 + 600)
    job.advance(0.31)
    assert job.steps_at == [1, 2]


def test_the_newest_directive_counts_whatever_came_last():
    job = plant()
    job.obey(to(1, seq=2), at_s=0.0)
    job.obey(to(0, seq=1), at_s=0.5)
    job.advance(3.0)

    assert job.level == 1


def test_a_pause_lasts_until_it_is_lifted_and_burns_idle_power():
    job = plant()
    job.obey(to(1, seq=1, action="pause"), at_s=0.5)
    job.obey(to(1, seq=2), at_s=11.0)
    job.advance(11.0)

    assert job.steps == 1
    assert job.energy_j == pytest.approx(300 + 10 * 60)
    job.advance(1000.0)
    assert job.steps == 50


def test_a_stop_ends_the_job_after_its_checkpoint():
    job = plant(tail_j=50.0, tail_s=2.0)
    job.obey(to(1, action="stop"), at_s=9.5)
    job.advance(1000.0)

    assert (job.done, job.stopped, job.steps) == (True, True, 10)
    assert job.energy_j == pytest.approx(10 * 300 + 50)


@pytest.mark.parametrize("power_w", [150.0, 200.0, 260.0])
def test_a_power_is_held_by_waiting(power_w):
    job = plant(steps=200)
    # All-in joules of a step: its own, and the idle power of the wait that the cap asks for.
    wait_s = (300.0 - power_w) / (power_w - 60.0)
    step_j = 300.0 + 60.0 * wait_s
    job.obey(to(1, power_w=power_w, burst_j=power_w, step_j=[None, step_j]), at_s=0.0)
    job.advance(10_000.0)

    assert job.energy_j / job.now_s == pytest.approx(power_w, rel=0.01)


def test_a_pace_is_a_share_of_the_time():
    job = plant()
    job.obey(to(1, pace=0.5), at_s=0.0)
    job.advance(1000.0)

    assert job.now_s == pytest.approx(100, rel=0.05)


def test_a_device_limit_stretches_the_steps_and_a_deaf_device_does_not_care():
    for obeys, seconds in ((True, 100.0), (False, 50.0)):
        job = plant(device=Device(obeys=obeys))
        job.limit_w = 180.0
        job.advance(1000.0)
        assert job.now_s == pytest.approx(seconds)


def test_a_hot_device_slows_down_by_itself():
    heat = Heat(kelvin_per_w=0.25, time_constant_s=5.0, throttle_c=80.0, throttled_w=150.0)
    job = plant(device=Device(heat=heat))
    job.advance(1000.0)

    assert job.now_s > 55
    assert 60 < job.temperature_c < 100


def test_steps_within_an_energy_are_counted_apart():
    job = Plant(workload(), DEVICE, within_j=10 * 300.0 + 1)
    job.advance(1000.0)

    assert (job.steps_within, job.steps) == (10, 50)


def test_the_trace_holds_every_change_of_power():
    job = plant(steps=5, startup_j=10.0, startup_s=1.0)
    job.advance(1000.0)

    assert job.trace[1] == (1.0, 10.0)
    assert job.trace[-1] == (pytest.approx(6.0), pytest.approx(1510.0))
    assert all(b[0] >= a[0] and b[1] >= a[1] for a, b in zip(job.trace, job.trace[1:], strict=False))
    assert not math.isnan(job.energy_j)
