"""What the operating system counts, without counting anything twice."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from greend.errors import SourceError
from greend.sources.hardware import cpu_model, hardware, is_virtual
from greend.sources.host import HostSource
from greend.types import Kind, Reading

Times = namedtuple("Times", "user nice system idle iowait irq softirq steal guest guest_nice")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HostSource:
    """A machine with a disk in two partitions, a loop device, a network card, a bridge and a guest."""
    times = Times(100.0, 5.0, 40.0, 800.0, 30.0, 2.0, 3.0, 7.0, 60.0, 1.0)
    disk = SimpleNamespace(read_bytes=1000, write_bytes=200)
    card = SimpleNamespace(bytes_sent=30, bytes_recv=4)
    monkeypatch.setattr(psutil, "cpu_times", lambda: times)
    monkeypatch.setattr(
        psutil, "disk_io_counters",
        lambda **_: dict.fromkeys(["sda", "sda1", "sda2", "loop0", "dm-0", "cciss/c0d0"], disk),
    )  # fmt: skip
    monkeypatch.setattr(psutil, "net_io_counters", lambda **_: dict.fromkeys(["lo", "eth0", "br0"], card))
    for device in ("block/sda", "block/cciss!c0d0", "class/net/eth0"):
        (tmp_path / device / "device").mkdir(parents=True)
    for device in ("block/loop0", "block/dm-0", "class/net/lo", "class/net/br0"):
        (tmp_path / device).mkdir(parents=True)
    return HostSource(sys=tmp_path)


def by_key(readings: list[Reading]) -> dict[str, float]:
    return {str(reading.key).removeprefix("host:"): reading.value for reading in readings}


def test_busy_time_counts_a_guest_once_and_leaves_out_waiting_and_stolen_time(machine: HostSource) -> None:
    readings = by_key(machine.read())

    assert readings["cpu:busy_s"] == 100 + 5 + 40 + 2 + 3
    assert readings["cpu:steal_s"] == 7


def test_whole_disks_are_counted_and_neither_partitions_nor_what_lies_on_top(machine: HostSource) -> None:
    readings = by_key(machine.read())

    assert {key: value for key, value in readings.items() if key.endswith(("read_b", "write_b"))} == {
        "sda:read_b": 1000, "sda:write_b": 200, "cciss/c0d0:read_b": 1000, "cciss/c0d0:write_b": 200,
    }  # fmt: skip


def test_network_cards_are_counted_and_neither_loopback_nor_bridges(machine: HostSource) -> None:
    readings = by_key(machine.read())

    assert {key: value for key, value in readings.items() if key.endswith(("sent_b", "recv_b"))} == {
        "eth0:sent_b": 30, "eth0:recv_b": 4,
    }  # fmt: skip


def test_a_container_has_only_virtual_interfaces_and_they_count(machine: HostSource, tmp_path: Path) -> None:
    (tmp_path / "class/net/eth0/device").rmdir()

    assert "eth0:sent_b" in by_key(machine.read())
    assert "lo:sent_b" not in by_key(machine.read())


def test_memory_in_use_is_a_gauge_in_gb(machine: HostSource) -> None:
    (used,) = (reading for reading in machine.read() if reading.key.counter == "used_gb")

    assert (used.kind, used.unit) == (Kind.GAUGE, "GB")
    assert 0 < used.value < 10_000


def test_a_part_that_cannot_be_read_is_named_and_the_others_go_on(
    machine: HostSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(psutil, "disk_io_counters", fails)
    readings = by_key(machine.read())

    assert "eth0:sent_b" in readings
    assert machine.problems == {"disk": "read disk: [Errno 13] Permission denied"}


def test_a_machine_without_proc_cannot_be_read(machine: HostSource, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise FileNotFoundError(2, "No such file or directory", "/proc/stat")

    monkeypatch.setattr(psutil, "cpu_times", fails)

    assert (machine.probe() or "").startswith("read /proc/stat: ")
    with pytest.raises(SourceError):
        machine.read()


def test_this_machine_can_be_read_and_its_counters_grow() -> None:
    source = HostSource()
    assert source.probe() is None
    before = by_key(source.read())
    sum(range(3_000_000))
    after = by_key(source.read())

    assert set(before) == set(after)
    assert all(after[key] >= value for key, value in before.items() if key != "dram:used_gb")
    source.close()


def test_hardware_has_threads_memory_and_a_name() -> None:
    found = hardware()

    assert found.threads >= 1
    assert 0.1 < found.dram_gb < 100_000


CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 79
model name\t: Intel(R)  Xeon(R) CPU @ 2.20GHz
stepping\t: 0
flags\t\t: fpu vme {flag} lahf_lm

processor\t: 1
model name\t: another
"""


@pytest.mark.parametrize(
    ("text", "name", "virtual"),
    [
        (
            CPUINFO.format(flag="hypervisor"),
            "Intel(R) Xeon(R) CPU @ 2.20GHz family 6 model 79 stepping 0",
            True,
        ),
        (CPUINFO.format(flag="rdseed"), "Intel(R) Xeon(R) CPU @ 2.20GHz family 6 model 79 stepping 0", False),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", "", False),
        ("", "", False),
    ],
)
def test_a_cpu_is_named_with_its_family_and_model(
    tmp_path: Path, text: str, name: str, virtual: bool
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)

    assert name == cpu_model(path)
    assert virtual is is_virtual(path)


def test_a_machine_without_cpuinfo_has_no_cpu_name(tmp_path: Path) -> None:
    assert cpu_model(tmp_path / "none") == ""
