"""RAPL: the energy counters of Intel and AMD CPU packages, and of server memory (pyRAPL).

pyRAPL 0.2.3.1 reads the counters; what it lacks is done here. It knows no wraps, so the range of each counter
is read beside it. It reads all sockets or none, so each gets an instance of its own and one that fails
leaves the others alone. It reads `intel-rapl/` only, which keeps the mmio mirror of package-0 from counting
twice.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greend.errors import SourceError
from greend.sources.hardware import CPUINFO, is_virtual
from greend.types import CounterKey, Reading

POWERCAP = Path("/sys/class/powercap")

MAX_RATE_UJ = 2000 * 1e6
"""No package draws 2 kW; a counter that seems to has restarted."""


@dataclass(slots=True)
class _Zone:
    """One counter: a package, or the memory behind one."""

    key: CounterKey
    socket: int
    range_uj: float | None
    api: Any = None
    """pyRAPL's open counter; None: to be opened at the next read."""


class RaplSource:
    """The counters `package_energy_uj` of each CPU package and `dram_energy_uj` of the memory behind it.

    `powercap` is where the ranges are read; the counters themselves pyRAPL finds below /sys.
    """

    def __init__(self, powercap: Path = POWERCAP, cpuinfo: Path = CPUINFO) -> None:
        self.name = "rapl"
        self.problems: dict[str, str] = {}
        self._powercap = powercap / "intel-rapl"
        self._cpuinfo = cpuinfo
        self._zones: list[_Zone] | None = None

    def probe(self) -> str | None:
        """Return None if at least one package can be read, else why not and what to do."""
        self.close()
        if not self._powercap.is_dir():
            if is_virtual(self._cpuinfo):
                return f"no energy counters: virtual machine ({self._powercap} is not there)"
            return (
                f"{self._powercap} is not there: sudo modprobe intel_rapl_msr   "
                "(AMD Zen too, from kernel 5.8; permanent: /etc/modules-load.d/greend.conf)"
            )
        if not _package_zones(self._powercap):
            return f"{self._powercap} holds no CPU package: its counters belong to something else"
        try:
            self.read()
        except SourceError as error:
            self.close()
            return str(error)
        return None

    def read(self) -> list[Reading]:
        """Return the counters in uJ. Raises SourceError when no package could be read."""
        if self._zones is None:
            self._zones = self._find()
        self.problems = {}
        readings: list[Reading] = []
        for zone in self._zones:
            try:
                readings.append(self._read(zone))
            except OSError as error:
                self._shut(zone)
                self.problems[zone.key.device] = _words(zone.key.device, error)
        if not any(reading.key.counter == "package_energy_uj" for reading in readings):
            raise SourceError("; ".join(dict.fromkeys(self.problems.values())) or "read RAPL: no package")
        return readings

    def close(self) -> None:
        """Close the counters."""
        for zone in self._zones or ():
            self._shut(zone)
        self._zones = None

    def _find(self) -> list[_Zone]:
        """Find packages, and memory where there is any. Raises SourceError when pyRAPL cannot open them."""
        pyrapl = _pyrapl()
        zones = []
        for socket, path in sorted(_package_zones(self._powercap).items()):
            package = CounterKey("rapl", f"package-{socket}", "package_energy_uj")
            zones.append(_Zone(package, socket, _range_uj(path)))
            for child in sorted(path.glob(f"{path.name}:*")):
                if _text(child / "name") == "dram":
                    dram = CounterKey("rapl", f"dram-{socket}", "dram_energy_uj")
                    zones.append(_Zone(dram, socket, _range_uj(child)))
        for zone in zones:
            try:
                self._open(zone)
            except (pyrapl.PyRAPLException, ValueError) as error:
                for opened in zones:
                    self._shut(opened)
                packages = [_text(path / "name") for path in self._powercap.glob("intel-rapl:?*")]
                raise SourceError(
                    f"open RAPL {zone.key.device}: pyRAPL cannot read this machine: it wants one zone "
                    f"per CPU socket, and the kernel shows {', '.join(sorted(packages))}"
                ) from error
            except OSError:
                continue  # said by the read that follows
        return zones

    def _read(self, zone: _Zone) -> Reading:
        if zone.api is None:
            self._open(zone)
        try:
            value_uj = zone.api.energy()[zone.socket]
        except ValueError as error:
            # A counter that reads as nothing, as files of a vanishing device do.
            raise OSError(errno.EIO, "not a number") from error
        return Reading(zone.key, value_uj, "uJ", wraps_at=zone.range_uj, max_rate=MAX_RATE_UJ)

    @staticmethod
    def _open(zone: _Zone) -> None:
        pyrapl = _pyrapl()
        api = pyrapl.PkgAPI if zone.key.counter == "package_energy_uj" else pyrapl.DramAPI
        with warnings.catch_warnings():
            # pyRAPL leaves the files that it looks through to the garbage collector.
            warnings.simplefilter("ignore", ResourceWarning)
            zone.api = api([zone.socket])

    @staticmethod
    def _shut(zone: _Zone) -> None:
        # A counter whose module was reloaded answers ENODEV for ever: the next read opens it anew.
        for file in zone.api._sys_files if zone.api is not None else ():
            with contextlib.suppress(OSError):
                file.close()
        zone.api = None


def _words(device: str, error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            "RAPL counters are readable by root only (the kernel's fix for CVE-2020-8694): run the greend "
            "service, which is allowed to, or start greend as root"
        )
    # pyRAPL looks through many files; say which, where the kernel told.
    where = f" ({error.filename})" if error.filename else ""
    return f"read RAPL {device}{where}: {error.strerror or os.strerror(error.errno or errno.EIO)}"


def _package_zones(root: Path) -> dict[int, Path]:
    """Return the zone of each CPU package by socket; the zone's number says nothing, its `name` does."""
    zones: dict[int, Path] = {}
    for path in sorted(root.glob("intel-rapl:?*")):
        words = _text(path / "name").split("-")
        if words[0] == "package" and len(words) > 1 and words[1].isdigit():
            zones.setdefault(int(words[1]), path)
    return zones


def _range_uj(zone: Path) -> float | None:
    text = _text(zone / "max_energy_range_uj")
    return float(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _pyrapl() -> Any:
    """Import pyRAPL without pandas and pymongo: 30 ms and 13 MB instead of 374 ms and 67 MB."""
    if "pyRAPL" not in sys.modules:
        with _quiet_import("pandas", "pymongo"):
            importlib.import_module("pyRAPL")
    return sys.modules["pyRAPL"]


@contextlib.contextmanager
def _quiet_import(*unwanted: str) -> Iterator[None]:
    """Make optional imports fail, and keep the complaints about it from the log."""
    blocked = [name for name in unwanted if name not in sys.modules]
    root = logging.getLogger()
    silence = logging.NullHandler()
    level = root.manager.disable
    # Without a handler, pyRAPL's logging.warning would set up the root logger for all of us.
    root.addHandler(silence)
    logging.disable(logging.WARNING)
    sys.modules.update(dict.fromkeys(blocked))  # type: ignore[arg-type]  # None: importing it fails
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in blocked:
            del sys.modules[name]
        logging.disable(level)
        root.removeHandler(silence)
