"""E = Σ C·P: which meter prices what, and what an interval costs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greend.energy.coefficients import load_table, parse
from greend.energy.model import price
from greend.types import ComponentEnergy, CounterKey, Hardware, Interval, IntervalFlag, Quality

NS = 1_000_000_000
TABLE = load_table()
MACHINE = Hardware(threads=8, dram_gb=32, cpu_model="AMD EPYC 7763 64-Core Processor")
IDLE_W = 8 * 0.4556
BUSY_W = 1.9573 - 0.4556


def interval(
    key: str, amount: float, seconds: float = 1.0, flags: IntervalFlag = IntervalFlag.NONE
) -> Interval:
    start = 1000 * NS
    return Interval(CounterKey(*key.split(":")), "", amount, start, start + round(seconds * NS), flags)


def priced(
    *intervals: Interval, hardware: Hardware = MACHINE, dt_s: float = 1.0
) -> dict[str, ComponentEnergy]:
    return {str(e.component): e for e in price(intervals, dt_s, hardware, TABLE)}


BUSY = interval("host:cpu:busy_s", 2.0)
PACKAGE0 = interval("rapl:package-0:package_energy_uj", 50e6)
PACKAGE1 = interval("rapl:package-1:package_energy_uj", 70e6)


def test_a_package_with_a_meter_is_measured() -> None:
    energy = priced(PACKAGE0, BUSY)["cpu package-0"]

    assert energy.energy_j == pytest.approx(50)
    assert energy.idle_j == pytest.approx(IDLE_W)
    assert energy.meter.name == "rapl-package"
    assert energy.meter.source == "RAPL package"
    assert energy.meter.quality is Quality.MEASURED
    assert energy.meter.error == pytest.approx(0.05)
    assert energy.meter.table == "default@1"


def test_two_packages_share_the_idle_watts_of_the_machine() -> None:
    energies = priced(PACKAGE0, PACKAGE1, BUSY)

    assert [e.idle_j for e in energies.values() if e.component.kind == "cpu"] == pytest.approx(
        [IDLE_W / 2] * 2
    )
    assert sum(e.energy_j for e in energies.values() if e.component.kind == "cpu") == pytest.approx(120)


def test_idle_is_never_more_than_what_was_measured() -> None:
    energy = priced(interval("rapl:package-0:package_energy_uj", 1e6))["cpu package-0"]

    assert (energy.idle_j, energy.dynamic_j) == (1.0, 0.0)


def test_a_cpu_without_a_meter_is_modelled_from_cpu_time_and_its_family() -> None:
    energy = priced(BUSY)["cpu"]

    assert energy.idle_j == pytest.approx(IDLE_W)
    assert energy.dynamic_j == pytest.approx(2 * BUSY_W)
    assert energy.meter.name == "cpu-time"
    assert energy.meter.source == "CPU time × W per thread (EPYC 3rd Gen)"
    assert energy.meter.quality is Quality.MODELLED
    assert energy.meter.error == pytest.approx(0.45)


def test_a_cpu_that_nobody_knows_has_the_error_of_the_world() -> None:
    energy = priced(BUSY, hardware=Hardware(4, 8, "Neoverse-N1"))["cpu"]

    assert energy.energy_j == pytest.approx(4 * 0.869 + 2 * 2.78)
    assert energy.meter.error == pytest.approx(1.6)


def test_a_package_that_is_awaited_is_not_modelled_meanwhile() -> None:
    energies = price([BUSY, PACKAGE1], 1, MACHINE, TABLE, awaited=[PACKAGE0.key])

    assert [str(e.component) for e in energies if e.component.kind == "cpu"] == ["cpu package-1"]
    assert not [e for e in price([BUSY], 1, MACHINE, TABLE, [PACKAGE0.key]) if e.component.kind == "cpu"]


def test_cpu_time_that_is_awaited_brings_its_idle_seconds_along() -> None:
    assert not [e for e in price([], 1, MACHINE, TABLE, [BUSY.key]) if e.component.kind == "cpu"]

    energy = priced(interval("host:cpu:busy_s", 2.0, seconds=3.0, flags=IntervalFlag.GAP))["cpu"]
    assert energy.idle_j == pytest.approx(3 * IDLE_W)
    assert energy.flags is IntervalFlag.GAP


def test_nothing_is_priced_that_no_meter_knows() -> None:
    assert set(priced()) == {"dram"}
    assert set(priced(PACKAGE0)) == {"cpu package-0", "dram"}


def test_memory_with_a_meter_is_measured_and_else_goes_by_its_size() -> None:
    measured = priced(interval("rapl:dram-0:dram_energy_uj", 6e6))["dram-0"]
    modelled = priced(dt_s=2.0)["dram"]

    assert (measured.energy_j, measured.meter.quality, measured.meter.error) == (
        pytest.approx(6), Quality.MEASURED, pytest.approx(0.1),
    )  # fmt: skip
    assert (modelled.idle_j, modelled.dynamic_j) == (pytest.approx(2 * 32 * 0.25), 0)
    assert (modelled.meter.quality, modelled.meter.error) == (Quality.MODELLED, pytest.approx(0.6))


def test_each_gpu_has_the_best_meter_that_it_has() -> None:
    energies = priced(
        interval("nvml:gpu-0:energy_mj", 300e3),
        interval("nvml:gpu-1:power_w", 200),
        interval("nvml:gpu-0:util", 0.5),
    )

    assert (energies["gpu-0"].energy_j, energies["gpu-0"].meter.name) == (pytest.approx(300), "nvml-energy")
    assert (energies["gpu-1"].energy_j, energies["gpu-1"].meter.name) == (pytest.approx(200), "nvml-power")
    assert energies["gpu-1"].meter.error == pytest.approx(0.08)
    assert energies["gpu-0"].idle_j == 0


def test_a_gpu_without_a_running_kernel_is_idle() -> None:
    energy = priced(interval("nvml:gpu-0:energy_mj", 60e3), interval("nvml:gpu-0:util", 0.0))["gpu-0"]

    assert (energy.idle_j, energy.dynamic_j) == (pytest.approx(60), 0)


def test_bytes_of_all_disks_are_one_component_and_assumed() -> None:
    energies = priced(
        interval("host:sda:read_b", 1e9), interval("host:sda:write_b", 2e9),
        interval("host:nvme0n1:read_b", 1e9), interval("host:nvme0n1:write_b", 0),
        interval("host:eth0:sent_b", 1e9), interval("host:eth0:recv_b", 1e9),
    )  # fmt: skip

    assert energies["disk"].dynamic_j == pytest.approx(20)
    assert energies["net"].dynamic_j == pytest.approx(6)
    assert (energies["disk"].meter.quality, energies["disk"].meter.error) == (
        Quality.ASSUMED,
        pytest.approx(2),
    )


def test_the_simulated_package_says_that_it_is_one() -> None:
    energy = priced(interval("fake:package-0:energy_uj", 50e6), BUSY)["cpu package-0"]

    assert energy.energy_j == pytest.approx(50)
    assert energy.meter.quality is Quality.ASSUMED


def test_a_real_package_is_not_counted_again_by_a_simulated_one() -> None:
    energies = priced(PACKAGE0, interval("fake:package-0:energy_uj", 99e6))

    assert energies["cpu package-0"].energy_j == pytest.approx(50)


@pytest.mark.parametrize("flag", [IntervalFlag.WRAP, IntervalFlag.RESET, IntervalFlag.AMBIGUOUS])
def test_what_happened_to_a_counter_stays_with_its_joules(flag: IntervalFlag) -> None:
    energy = priced(interval("rapl:package-0:package_energy_uj", 1e6, flags=flag))["cpu package-0"]

    assert flag is energy.flags


def test_a_table_without_a_row_for_this_cpu_does_not_model_it() -> None:
    table = parse(
        'name="t"\nversion=1\n[[meter]]\nname="cpu-time"\ncomponent="cpu"\ndevice="cpu"\nsource="s"\n'
        'quality="modelled"\nfactor=1\nbasis="b"\n[[meter.term]]\nsource="host"\ncounter="busy_s"\n'
        'joules_per_unit="busy_w_per_thread"\n',
        "t",
    )

    assert price([BUSY], 1, MACHINE, table) == []


def test_a_floor_in_watts_is_for_each_device() -> None:
    table = parse(
        'name="t"\nversion=1\n[[meter]]\nname="g"\ncomponent="gpu"\nsource="s"\nquality="measured"\n'
        'factor=1\nbasis="b"\nfloor_w=20.0\n[[meter.term]]\nsource="nvml"\ncounter="energy_mj"\n'
        "joules_per_unit=1e-3\n",
        "t",
    )
    energies = price([interval(f"nvml:gpu-{n}:energy_mj", 1e5) for n in (0, 1)], 1, MACHINE, table)

    assert [(e.idle_j, e.dynamic_j) for e in energies] == [(20, 80), (20, 80)]


keys = [
    "rapl:package-0:package_energy_uj", "rapl:package-1:package_energy_uj", "rapl:dram-0:dram_energy_uj",
    "host:cpu:busy_s", "host:sda:read_b", "host:sda:write_b", "nvml:gpu-0:energy_mj", "nvml:gpu-0:power_w",
    "nvml:gpu-0:util", "fake:package-0:energy_uj", "unknown:thing:counter",
]  # fmt: skip


@settings(deadline=None)  # a busy machine is not a wrong answer
@given(
    found=st.dictionaries(st.sampled_from(keys), st.floats(0, 1e12)),
    awaited=st.lists(st.sampled_from(keys), unique=True),
    seconds=st.floats(0.01, 1e4),
)
def test_components_are_disjoint_and_never_negative(
    found: dict[str, float], awaited: list[str], seconds: float
) -> None:
    intervals = [interval(key, amount, seconds) for key, amount in found.items()]
    waiting = [CounterKey(*key.split(":")) for key in awaited if key not in found]
    energies = price(intervals, seconds, MACHINE, TABLE, waiting)

    components = [e.component for e in energies]
    assert len(components) == len(set(components))
    assert not {"cpu", "package-0"} <= {c.device for c in components if c.kind == "cpu"}
    for energy in energies:
        assert energy.idle_j >= 0
        assert energy.dynamic_j >= 0
        assert math.isfinite(energy.energy_j)
