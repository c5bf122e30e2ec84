"""The way of one sample, from a source to somebody's joules, against an energy that is known."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field

import pytest

from greend.attribution import split
from greend.clock import ManualClock
from greend.counters import CounterBook
from greend.energy.coefficients import load_table
from greend.energy.model import price
from greend.errors import SourceError
from greend.sources.fake import FakeSource
from greend.types import IDLE, OTHER, ComponentEnergy, Consumer, CounterKey, Hardware, Reading, Share, Usage

TABLE = load_table()
MACHINE = Hardware(threads=4, dram_gb=0.0, cpu_model="Neoverse-N1")
JOB = Consumer("job", "j-1")
BUSY = CounterKey("host", "cpu", "busy_s")


@dataclass
class Machine:
    """A simulated package beside a CPU of which a job keeps two of three busy cores."""

    clock: ManualClock = field(default_factory=ManualClock)
    book: CounterBook = field(default_factory=lambda: CounterBook(period_s=1.0))
    energies: list[ComponentEnergy] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    busy_s: float = 0.0

    def __post_init__(self) -> None:
        self.source = FakeSource(self.clock, power_w=100, wraps_at=65_712_999_613)

    def tick(self, seconds: float = 1.0) -> None:
        self.clock.advance(seconds)
        self.busy_s += 3.0 * seconds
        readings = [Reading(BUSY, self.busy_s, "s", max_rate=8.0)]
        with contextlib.suppress(SourceError):
            readings += self.source.read()
        intervals = self.book.update(readings, self.clock.now().mono_ns)
        energies = price(intervals, seconds, MACHINE, TABLE, self.book.awaited())
        busy_s = sum(i.amount for i in intervals if i.key == BUSY)
        self.energies += energies
        self.shares += split(energies, busy_s, [Usage(JOB, 2.0 * seconds)])

    def cpu_j(self) -> float:
        return math.fsum(e.energy_j for e in self.energies if e.component.kind == "cpu")

    def share_j(self, consumer: Consumer) -> float:
        return math.fsum(s.energy_j for s in self.shares if s.consumer == consumer)


@pytest.fixture
def machine() -> Machine:
    machine = Machine()
    machine.tick()
    machine.start_j = machine.source.energy_j  # type: ignore[attr-defined]
    return machine


def used_j(machine: Machine) -> float:
    start_j: float = machine.start_j  # type: ignore[attr-defined]
    return machine.source.energy_j - start_j


def test_every_joule_arrives_across_wraps_and_changes_of_power(machine: Machine) -> None:
    for tick in range(1500):
        machine.source.set_power(60 + tick % 7 * 20)
        machine.tick()

    assert machine.source.energy_j > 2 * 65_713, "it wrapped more than once"
    assert machine.cpu_j() == pytest.approx(used_j(machine), rel=1e-9)


def test_no_second_is_priced_twice_while_the_meter_fails(machine: Machine) -> None:
    machine.tick()
    machine.source.fail_next(times=5)
    for _ in range(10):
        machine.tick()

    assert machine.cpu_j() == pytest.approx(used_j(machine), rel=1e-9)
    assert {e.meter.name for e in machine.energies if e.component.kind == "cpu"} == {"fake-package"}


def test_a_meter_that_stays_away_is_replaced_by_the_model(machine: Machine) -> None:
    machine.source.fail_next(times=1000)
    for _ in range(60):
        machine.tick()

    cpu = [e for e in machine.energies if e.component.kind == "cpu"]
    assert {e.meter.name for e in cpu} == {"cpu-time"}
    assert len(cpu) == 60 - 30, "for 30 s the meter might still have come back and told"


def test_a_restarted_counter_costs_part_of_one_second(machine: Machine) -> None:
    for _ in range(10):
        machine.tick()
    machine.clock.advance(0.5)
    machine.source.restart_counter()
    machine.tick(0.5)

    assert used_j(machine) - machine.cpu_j() == pytest.approx(50)


def test_the_jobs_part_and_the_rest_add_up(machine: Machine) -> None:
    for _ in range(30):
        machine.tick()

    idle_w = 4 * 0.869
    assert machine.share_j(IDLE) == pytest.approx(30 * idle_w)
    assert machine.share_j(JOB) == pytest.approx(30 * (100 - idle_w) * 2 / 3)
    total_j = machine.share_j(IDLE) + machine.share_j(JOB) + machine.share_j(OTHER)
    assert total_j == pytest.approx(math.fsum(e.energy_j for e in machine.energies), rel=1e-9)
