"""Pressure: detector, action, delay, look again; down fast, up slowly."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.clock import ManualClock
from greend.governor.conditions import Conditions, Machine
from greend.governor.pressure import KINDS, Pressure
from greend.governor.profile import LevelProfile
from greend.types import Rank

PROFILE = LevelProfile.prior((0.25, 0.5, 0.75, 1.0))
TOP = 3
FIELDS = {
    "cpu_busy": "cpu_share",
    "cpu_stalled": "cpu_stalled",
    "gpu_busy": "gpu_share",
    "io_stalled": "io_stalled",
    "memory_stalled": "memory_stalled",
    "memory_free": "memory_free",
    "temperature": "temperature_c",
}


class Rig:
    """A job that takes the level it is told, on a machine of which the test says one number; 1 s a turn."""

    def __init__(self, pressure: Pressure, **machine) -> None:
        self.pressure, self.machine = pressure, machine
        self.clock, self.memory, self.bound = ManualClock(), None, None
        self.profile = PROFILE

    @property
    def level(self) -> int:
        return self.bound.level if self.bound is not None else TOP

    @property
    def pace(self) -> float:
        return self.bound.pace if self.bound is not None else 1.0

    def turns(self, seconds: int, value: float | None) -> list[int]:
        levels = []
        machine = Machine(**({FIELDS[self.pressure.kind]: value} | self.machine))
        for _ in range(seconds):
            now = Conditions(self.profile, 0.0, 0.0, None, level=self.level, machine=machine)
            self.bound, self.memory = self.pressure.bound(now, self.memory, self.clock.advance(1.0))
            levels.append(self.level)
        return levels


def test_each_kind_of_pressure_reads_its_own_number():
    for name, field in FIELDS.items():
        assert KINDS[name].read(Machine(**{field: 0.25})) == 0.25


def test_below_the_threshold_nothing_is_said():
    assert Rig(Pressure("io_stalled", 0.4)).turns(100, 0.39) == [TOP] * 100


def test_a_short_peak_is_let_pass():
    rig = Rig(Pressure("io_stalled", 0.4))

    assert rig.turns(5, 0.9) + rig.turns(1, 0.3) + rig.turns(5, 0.9) == [TOP] * 11


def test_what_lasts_leads_to_one_level_less_and_the_next_look_is_after_a_while():
    levels = Rig(Pressure("memory_stalled", 0.4, lasting_s=5, settle_s=10)).turns(40, 0.9)

    assert [levels.index(level) for level in (2, 1, 0)] == [5, 15, 25]


def test_what_falls_fast_by_itself_is_let_fall():
    rig = Rig(Pressure("io_stalled", 0.1))
    rig.turns(5, 0.9)

    assert rig.turns(1, 0.7) == [TOP]
    assert rig.turns(1, 0.65) == [2]


def test_going_up_takes_one_quiet_minute_a_level():
    rig = Rig(Pressure("memory_stalled", 0.4))
    rig.turns(20, 0.9)
    assert rig.level == 1

    levels = rig.turns(130, 0.1)
    assert [levels.index(level) for level in (2, 3)] == [60, 120]
    assert rig.bound is None


def test_between_the_threshold_and_a_tenth_below_it_nothing_moves():
    rig = Rig(Pressure("memory_stalled", 0.4))
    rig.turns(8, 0.9)

    assert set(rig.turns(600, 0.38)) == {2}


def test_a_step_up_that_brought_the_pressure_back_is_tried_again_after_twice_the_time():
    rig = Rig(Pressure("memory_stalled", 0.4))
    levels = [TOP]
    for _ in range(1200):
        levels += rig.turns(1, 0.9 if rig.level == TOP else 0.1)
    rises = [n for n in range(1, len(levels)) if levels[n] > levels[n - 1]]
    falls = [n for n in range(1, len(levels)) if levels[n] < levels[n - 1]]
    waits = [rise - fall for fall, rise in zip(falls, rises, strict=False)]

    assert waits == [pytest.approx(seconds, abs=2) for seconds in (60, 120, 240, 480)]


def test_once_all_was_quiet_the_next_pressure_begins_anew():
    rig = Rig(Pressure("memory_stalled", 0.4))
    for _ in range(300):
        rig.turns(1, 0.9 if rig.level == TOP else 0.1)
    rig.turns(600, 0.1)
    rig.turns(8, 0.9)

    assert rig.turns(62, 0.1)[-1] == TOP


def test_where_smaller_levels_move_nothing_the_job_gets_its_own_back_and_is_told_why():
    rig = Rig(Pressure("io_stalled", 0.4))
    rig.turns(20, 0.9)
    assert rig.level == 1

    rig.turns(20, 0.9)
    assert rig.level == TOP
    assert "smaller levels moved nothing: it does not come from this job" in rig.bound.reason
    assert set(rig.turns(600, 0.9)) == {TOP}

    rig.turns(5, 0.1)
    assert rig.turns(6, 0.9)[-1] == 2


def test_for_safety_a_job_gives_way_to_the_end():
    rig = Rig(Pressure("memory_free", 0.1))

    assert rig.turns(40, 0.05)[-1] == 0
    assert rig.bound.rank is Rank.SAFETY
    assert rig.bound.urgent
    assert "5 % of the memory are free, below 10 %" in rig.bound.reason


def test_heat_takes_the_pace_before_the_level():
    rig = Rig(Pressure("temperature", 80.0))
    seen = []
    for _ in range(45):
        rig.turns(1, 90.0)
        seen.append((rig.level, rig.pace))

    assert list(dict.fromkeys(seen)) == [(3, 1.0), (3, 0.75), (3, 0.5), (2, 0.5), (1, 0.5)]


def test_after_heat_the_level_comes_back_before_the_pace():
    rig = Rig(Pressure("temperature", 80.0))
    rig.turns(28, 90.0)
    assert (rig.level, rig.pace) == (2, 0.5)
    seen = []
    for _ in range(200):
        rig.turns(1, 70.0)
        seen.append((rig.level, rig.pace))

    assert list(dict.fromkeys(seen)) == [(2, 0.5), (3, 0.5), (3, 0.75), (3, 1.0)]


def test_a_gpu_that_waits_for_its_data_is_not_helped_by_a_smaller_model():
    rig = Rig(Pressure("cpu_stalled", 0.4), gpu_share=0.3)
    rig.turns(60, 0.9)

    assert rig.level == TOP
    assert "the GPU is busy 30 % of the time: it waits for its data" in rig.bound.reason


@pytest.mark.parametrize("gpu_share", [None, 0.0, 0.9])
def test_a_job_on_the_cores_or_one_that_fills_the_gpu_gives_way(gpu_share):
    rig = Rig(Pressure("cpu_stalled", 0.4), gpu_share=gpu_share)

    assert rig.turns(10, 0.9)[-1] == 2


def test_a_sensor_that_is_gone_changes_nothing():
    rig = Rig(Pressure("temperature", 80.0))
    assert rig.turns(10, None) == [TOP] * 10
    rig.turns(28, 90.0)

    assert set(rig.turns(100, None)) == {2}


def test_a_level_that_saves_nothing_is_passed_over():
    rig = Rig(Pressure("memory_stalled", 0.4))
    rig.profile = replace(PROFILE, dead=frozenset({2}))

    assert rig.turns(8, 0.9)[-1] == 1


def test_an_unknown_kind_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="'noise': there are cpu_busy"):
        Pressure("noise", 1.0)


@given(st.lists(st.tuples(st.integers(1, 60), st.floats(0.0, 1.0)), max_size=20))
def test_changes_are_at_least_a_settling_time_apart_unless_it_gives_up(spans):
    rig = Rig(Pressure("memory_stalled", 0.4, settle_s=10))
    levels = [TOP]
    for seconds, value in spans:
        levels += rig.turns(seconds, value)
    changes = [n for n in range(1, len(levels)) if levels[n] != levels[n - 1]]

    assert all(0 <= level <= TOP for level in levels)
    assert all(abs(levels[n] - levels[n - 1]) == 1 for n in changes)
    assert all(later - earlier >= 10 for earlier, later in pairwise(changes))
