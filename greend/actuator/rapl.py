"""The power limits of CPU packages: the RAPL constraints that the kernel's powercap framework shows.

Formats: https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from greend.actuator.control import Setting, clamp
from greend.errors import ControlError

POWERCAP = Path("/sys/class/powercap")

LEAST_SHARE = 0.25
"""Of the most that a package may draw. The kernel does not say how low it may go, and below its idle power it
crawls: a quarter is our choice."""


@dataclass(frozen=True, slots=True)
class RaplLimit:
    """One constraint of one package: `long_term` holds its average, `short_term` its bursts."""

    zone: Path
    index: int
    constraint: str
    device: str
    kind: str = "rapl"
    unit: str = "W"

    @property
    def name(self) -> str:
        """Package and constraint."""
        return f"rapl:{self.device}:{self.constraint}"

    def read(self) -> Setting:
        """Return limit and window, in uW and us."""
        limit_uw, window_us = self._get("power_limit_uw"), self._get("time_window_us")
        return Setting(limit_uw / 1e6, f"{limit_uw} {window_us}", window_us / 1e6)

    def range(self, before: Setting) -> tuple[float, float]:
        """Return what may be asked for: never more than the hardware's figure, or than where it stood."""
        before_w = before.value or 0.0
        # 0: the hardware gives no figure.
        rated_w = self._get("max_power_uw", 0) / 1e6
        least_w = self._get("min_power_uw", 0) / 1e6 or LEAST_SHARE * (rated_w or before_w)
        return least_w, max(rated_w, before_w, least_w)

    def words(self, value: float, window_s: float | None, before: Setting) -> str:
        """Return limit and window; with no window asked for, the one that stood."""
        window_us = before.raw.split()[1] if window_s is None else str(round(window_s * 1e6))
        return f"{round(clamp(value, *self.range(before)) * 1e6)} {window_us}"

    def write(self, raw: str) -> None:
        """Set both; the window first, so that a lower limit never acts over a window that was not meant."""
        limit_uw, window_us = raw.split()
        if int(window_us) != self._get("time_window_us"):
            self._set("time_window_us", window_us)
        self._set("power_limit_uw", limit_uw)

    def energy_j(self) -> tuple[float, float] | None:
        """Return the package's energy counter and its range; None where it cannot be read."""
        try:
            used_uj = int((self.zone / "energy_uj").read_text())
            range_uj = int((self.zone / "max_energy_range_uj").read_text())
        except (OSError, ValueError):
            return None
        return used_uj / 1e6, range_uj / 1e6

    def _file(self, what: str) -> Path:
        return self.zone / f"constraint_{self.index}_{what}"

    def _get(self, what: str, otherwise: int | None = None) -> int:
        path = self._file(what)
        if otherwise is not None and not path.exists():
            return otherwise
        with _asking(f"read {path}"):
            return int(path.read_text())

    def _set(self, what: str, text: str) -> None:
        path = self._file(what)
        with _asking(f"write {text} to {path}"):
            put(path, text)


def rapl_limits(powercap: Path = POWERCAP) -> list[RaplLimit]:
    """Return the constraints of each package. Raises ControlError, in words, where there are none.

    Only the zones of `intel-rapl` (AMD's are there too): `intel-rapl-mmio` is a second door to package-0.
    """
    root = powercap / "intel-rapl"
    if not root.is_dir():
        raise ControlError(f"{root} is not there: this machine shows no RAPL (a virtual machine never does)")
    found, off = [], []
    for zone in sorted(root.glob("intel-rapl:?*")):
        device = _text(zone / "name")
        if not device.startswith("package-"):
            continue
        if _text(zone / "enabled") == "0":
            off.append(device)
            continue
        for file in sorted(zone.glob("constraint_*_name")):
            index = int(file.name.split("_")[1])
            if (zone / f"constraint_{index}_power_limit_uw").exists():
                found.append(RaplLimit(zone, index, _text(file), device))
    if not found and off:
        raise ControlError(
            f"the limits of {', '.join(off)} are switched off: echo 1 > {root}/intel-rapl:N/enabled"
        )
    if not found:
        raise ControlError(f"{root} shows no limits: AMD's driver counts energy and cannot hold it down")
    return found


def put(path: Path, text: str) -> None:
    """Write to a file of the kernel's in one write; never through a link. Raises OSError."""
    number = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.write(number, text.encode())
    finally:
        os.close(number)


@contextlib.contextmanager
def _asking(what: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ControlError(f"{what}: it holds no number") from error
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno in (errno.EACCES, errno.EPERM):
            why = (
                "not permitted: the firmware has locked the limit (a BIOS setting)"
                if os.geteuid() == 0
                else "not permitted: only root may set it (systemctl start greend-actuator.socket)"
            )
        raise ControlError(f"{what}: {why}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
