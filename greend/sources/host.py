"""What the operating system counts for the whole machine: CPU time, memory, disks, network (psutil)."""

from __future__ import annotations

from pathlib import Path

import psutil

from greend.errors import SourceError
from greend.types import CounterKey, Kind, Reading

SYS = Path("/sys")

MAX_BYTES_PER_S = 1e11
"""No disk or network card does more than 800 Gbit/s; a counter that seems to is a counter that restarted."""


class HostSource:
    """Busy core-seconds and steal of the CPU, GB of memory in use, bytes of each disk and network card.

    `sys` is where the kernel shows its devices.
    """

    def __init__(self, sys: Path = SYS) -> None:
        self.name = "host"
        self.problems: dict[str, str] = {}
        self._sys = sys
        self._known: dict[tuple[str, str], bool] = {}

    def probe(self) -> str | None:
        """Return None: every machine has CPU time."""
        try:
            self._cpu()
        except SourceError as error:
            return str(error)
        return None

    def read(self) -> list[Reading]:
        """Return the counters (s, B) and memory in use (GB = 2**30 B). Raises SourceError without /proc."""
        readings = self._cpu()
        self.problems = {}
        for device, read in (("dram", self._dram), ("disk", self._disks), ("net", self._cards)):
            try:
                readings += read()
            except (OSError, RuntimeError, NotImplementedError) as error:
                self.problems[device] = f"read {device}: {error}"
        return readings

    def close(self) -> None:
        """Do nothing: psutil keeps no files open."""

    def _cpu(self) -> list[Reading]:
        try:
            times = psutil.cpu_times()
        except (OSError, RuntimeError) as error:
            raise SourceError(f"read /proc/stat: {error}") from error
        # A guest's time is inside user already, and its nice time inside nice. Waiting for a disk is idle.
        # Stolen time is somebody else's work: it counts apart.
        busy_s = times.user + times.nice + times.system + times.irq + times.softirq
        # Twice the threads: after a pause of the whole machine the kernel hands time in late.
        max_rate = 2.0 * (psutil.cpu_count() or 1)
        return [
            Reading(CounterKey("host", "cpu", "busy_s"), busy_s, "s", max_rate=max_rate),
            Reading(CounterKey("host", "cpu", "steal_s"), times.steal, "s", max_rate=max_rate),
        ]

    def _dram(self) -> list[Reading]:
        used_gb = psutil.virtual_memory().used / 2**30
        return [Reading(CounterKey("host", "dram", "used_gb"), used_gb, "GB", kind=Kind.GAUGE)]

    def _disks(self) -> list[Reading]:
        # Each disk has a counter of its own: in a sum, pulling one out would look like a restart at
        # terabytes. nowrap: psutil unwraps the 32-bit counters of old kernels.
        disks = psutil.disk_io_counters(perdisk=True, nowrap=True) or {}
        readings = []
        for name, disk in disks.items():
            if self._is_device("block", name):
                readings += [
                    _bytes(name, "read_b", disk.read_bytes),
                    _bytes(name, "write_b", disk.write_bytes),
                ]
        return readings

    def _cards(self) -> list[Reading]:
        cards = psutil.net_io_counters(pernic=True, nowrap=True) or {}
        # A bridge, bond or tunnel counts bytes that a card counts too. In a container the only interface
        # is virtual: then it is the one to count.
        chosen = [name for name in cards if self._is_device("class/net", name)]
        readings = []
        for name in chosen or [name for name in cards if name != "lo"]:
            readings += [
                _bytes(name, "sent_b", cards[name].bytes_sent),
                _bytes(name, "recv_b", cards[name].bytes_recv),
            ]
        return readings

    def _is_device(self, kind: str, name: str) -> bool:
        """Whether hardware stands behind a name: not so for partitions, loop, dm, md, zram, lo, bridges."""
        key = (kind, name)
        if key not in self._known:
            # In /sys/block a slash of a device name is written as an exclamation mark (cciss/c0d0).
            self._known[key] = (self._sys / kind / name.replace("/", "!") / "device").exists()
        return self._known[key]


def _bytes(device: str, counter: str, value: int) -> Reading:
    return Reading(CounterKey("host", device, counter), value, "B", max_rate=MAX_BYTES_PER_S)
