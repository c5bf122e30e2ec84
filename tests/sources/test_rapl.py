"""RAPL through pyRAPL, on a simulated powercap tree: what is read, and what is said when nothing can be."""

from __future__ import annotations

import errno
import logging
import sys
from pathlib import Path

import pytest

from greend.clock import NS
from greend.counters import CounterBook
from greend.errors import SourceError
from greend.sources import rapl
from greend.sources.rapl import RaplSource
from greend.types import CounterKey, IntervalFlag, Reading
from rigs.powercap import DRAM_RANGE_UJ, PACKAGE_RANGE_UJ, PowercapRig

PACKAGE = CounterKey("rapl", "package-0", "package_energy_uj")
DRAM = CounterKey("rapl", "dram-0", "dram_energy_uj")


@pytest.fixture
def server(powercap: PowercapRig) -> PowercapRig:
    """Two sockets, each with memory; the kernel numbered the zones the other way round."""
    powercap.add_cpu(2, socket=1)
    powercap.add_zone("intel-rapl:0", "package-1", energy_uj=7_000_000)
    powercap.add_zone("intel-rapl:0/intel-rapl:0:0", "dram", energy_uj=700_000)
    powercap.add_zone("intel-rapl:1", "package-0", energy_uj=5_000_000)
    powercap.add_zone("intel-rapl:1/intel-rapl:1:0", "core", energy_uj=3_000_000)
    powercap.add_zone("intel-rapl:1/intel-rapl:1:1", "dram", energy_uj=500_000)
    return powercap


def counter(rig: PowercapRig, zone: str) -> Path:
    return (rig.powercap / "intel-rapl" / zone / "energy_uj").resolve()


def by_device(readings: list[Reading]) -> dict[str, float]:
    return {reading.key.device: reading.value for reading in readings}


def test_packages_and_memory_are_read_by_their_names_and_no_level_twice(server: PowercapRig) -> None:
    source = RaplSource(server.powercap)
    assert source.probe() is None

    assert by_device(source.read()) == {
        "package-0": 5_000_000, "dram-0": 500_000, "package-1": 7_000_000, "dram-1": 700_000,
    }  # fmt: skip
    assert source.problems == {}


def test_each_counter_says_where_it_wraps_and_how_fast_it_can_grow(server: PowercapRig) -> None:
    readings = {reading.key: reading for reading in RaplSource(server.powercap).read()}

    assert readings[PACKAGE].wraps_at == PACKAGE_RANGE_UJ
    assert readings[DRAM].wraps_at == DRAM_RANGE_UJ
    assert readings[PACKAGE].max_rate == 2e9
    assert readings[PACKAGE].unit == "uJ"


def test_a_counter_without_a_range_does_not_wrap(server: PowercapRig) -> None:
    counter(server, "intel-rapl:1").with_name("max_energy_range_uj").unlink()

    readings = {reading.key: reading for reading in RaplSource(server.powercap).read()}
    assert readings[PACKAGE].wraps_at is None


def test_a_wrap_is_counted_through(powercap: PowercapRig) -> None:
    file = powercap.add_zone("intel-rapl:0", "package-0", energy_uj=PACKAGE_RANGE_UJ - 20_000_000)
    source, book = RaplSource(powercap.powercap), CounterBook()
    book.update(source.read(), 0)
    powercap.set(file, 30_000_000)
    (interval,) = book.update(source.read(), NS)

    assert (interval.amount, interval.flags) == (50_000_000, IntervalFlag.WRAP)


def test_files_are_opened_once(server: PowercapRig) -> None:
    source = RaplSource(server.powercap)
    source.read()
    opened = len(server.opened)
    server.set(counter(server, "intel-rapl:1"), 6_000_000)

    assert by_device(source.read())["package-0"] == 6_000_000
    assert opened == len(server.opened)
    source.close()


def test_a_client_machine_without_memory_counters_is_read(powercap: PowercapRig) -> None:
    powercap.add_zone("intel-rapl:0", "package-0", energy_uj=5)
    powercap.add_zone("intel-rapl:0/intel-rapl:0:0", "core")
    powercap.add_zone("intel-rapl:0/intel-rapl:0:1", "uncore")
    powercap.add_zone("intel-rapl:1", "psys", energy_uj=99)

    assert by_device(RaplSource(powercap.powercap).read()) == {"package-0": 5}


def test_the_mmio_mirror_of_a_package_is_not_counted_again(powercap: PowercapRig) -> None:
    powercap.add_zone("intel-rapl:0", "package-0", energy_uj=5)
    powercap.add_zone("intel-rapl-mmio:0", "package-0", energy_uj=5)

    assert by_device(RaplSource(powercap.powercap).read()) == {"package-0": 5}


def test_a_counter_that_fails_leaves_the_others_alone_and_recovers(server: PowercapRig) -> None:
    source, book = RaplSource(server.powercap), CounterBook()
    book.update(source.read(), 0)
    file = counter(server, "intel-rapl:1")
    server.set(file, 55_000_000)
    server.read_faults[file] = errno.EIO
    book.update(source.read(), NS)

    assert source.problems == {"package-0": "read RAPL package-0: Input/output error"}
    server.read_faults.clear()
    server.set(file, 105_000_000)
    (package,) = (i for i in book.update(source.read(), 2 * NS) if i.key == PACKAGE)
    assert (package.amount, package.flags) == (100_000_000, IntervalFlag.GAP)
    assert source.problems == {}


def test_a_counter_of_a_reloaded_module_is_opened_anew(powercap: PowercapRig) -> None:
    file = powercap.add_zone("intel-rapl:0", "package-0", energy_uj=5)
    source = RaplSource(powercap.powercap)
    source.read()
    file.rename(file.with_name("gone"))
    with pytest.raises(SourceError, match="No such device"):
        source.read()
    with pytest.raises(SourceError, match="No such file"):
        source.read()

    file.with_name("gone").rename(file)
    assert by_device(source.read()) == {"package-0": 5}


def test_a_counter_that_reads_as_nothing_is_a_failure(powercap: PowercapRig) -> None:
    file = powercap.add_zone("intel-rapl:0", "package-0")
    source = RaplSource(powercap.powercap)
    source.read()
    fresh = file.with_name("new")
    fresh.write_text("\n")
    fresh.replace(file)

    with pytest.raises(SourceError, match="read RAPL package-0: not a number"):
        source.read()


def test_counters_for_root_only_are_explained(powercap: PowercapRig) -> None:
    file = powercap.add_zone("intel-rapl:0", "package-0")
    powercap.open_faults[file.resolve()] = errno.EACCES

    why_not = RaplSource(powercap.powercap).probe()

    assert why_not is not None
    assert why_not.startswith("RAPL counters are readable by root only (the kernel's fix for CVE-2020-8694)")
    assert "start greend as root" in why_not


def test_a_package_of_several_dies_is_explained(powercap: PowercapRig) -> None:
    powercap.add_zone("intel-rapl:0", "package-0-die-0")
    powercap.add_zone("intel-rapl:1", "package-0-die-1")

    why_not = RaplSource(powercap.powercap).probe()

    assert why_not is not None
    assert "pyRAPL cannot read this machine: it wants one zone per CPU socket" in why_not
    assert "package-0-die-0, package-0-die-1" in why_not


def test_a_tree_without_a_package_is_explained(powercap: PowercapRig) -> None:
    powercap.add_zone("intel-rapl:0", "psys")

    assert "holds no CPU package" in (RaplSource(powercap.powercap).probe() or "")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("fpu hypervisor", "no energy counters: virtual machine"),
        ("fpu", "is not there: sudo modprobe intel_rapl_msr"),
    ],
)
def test_a_machine_without_counters_is_explained(tmp_path: Path, flags: str, words: str) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    source = RaplSource(tmp_path / "powercap", cpuinfo)

    assert words in (source.probe() or "")
    with pytest.raises(SourceError, match="no package"):
        source.read()


def test_importing_pyrapl_neither_loads_pandas_nor_touches_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in ("pyRAPL", "pandas", "pymongo")]:
        monkeypatch.delitem(sys.modules, name)
    handlers = list(logging.getLogger().handlers)

    assert rapl._pyrapl().PkgAPI
    assert "pandas" not in sys.modules
    assert caplog.text == ""
    assert handlers == logging.getLogger().handlers
    assert logging.getLogger().manager.disable == 0
