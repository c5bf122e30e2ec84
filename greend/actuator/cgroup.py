"""The CPU quota of a control group: `cpu.max` of cgroup v2.

Format: https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from greend.actuator.control import Setting, clamp
from greend.actuator.rapl import put
from greend.errors import ControlError

CGROUP = Path("/sys/fs/cgroup")
PREFIX = "cgroup:"
LEAST_CORES = 0.05
"""A job with less answers nobody: the kernel's shortest quota is 1 ms of a period of 100 ms."""
PERIOD_US = 100_000


@dataclass(frozen=True, slots=True)
class CpuQuota:
    """How many cores' worth of time the processes of one group may use."""

    folder: Path
    device: str
    """The group's path, as /proc/PID/cgroup has it."""
    cores: int
    kind: str = "cgroup"
    unit: str = "cores"

    @property
    def name(self) -> str:
        """The group's path."""
        return PREFIX + self.device

    def read(self) -> Setting:
        """Return quota and period, in us."""
        with self._asking("read"):
            raw = (self.folder / "cpu.max").read_text().strip()
            quota, period = raw.split()
            return Setting(None if quota == "max" else int(quota) / int(period), raw, int(period) / 1e6)

    def range(self, before: Setting) -> tuple[float, float]:
        """Return a twentieth of a core, and all of them."""
        return LEAST_CORES, float(self.cores)

    def words(self, value: float, window_s: float | None, before: Setting) -> str:
        """Return quota and period; with no window asked for, a tenth of a second, the kernel's default."""
        # The kernel takes periods from 1 ms to 1 s.
        period_us = PERIOD_US if window_s is None else round(clamp(window_s, 1e-3, 1.0) * 1e6)
        return f"{max(round(clamp(value, *self.range(before)) * period_us), 1000)} {period_us}"

    def write(self, raw: str) -> None:
        """Set both at once, as the kernel does."""
        with self._asking(f"write {raw} to"):
            put(self.folder / "cpu.max", raw)

    def energy_j(self) -> tuple[float, float] | None:
        """Return None: a group has no meter of its own."""
        return None

    @contextlib.contextmanager
    def _asking(self, verb: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise ControlError(f"{verb} {self.folder / 'cpu.max'}: it holds no quota") from error
        except OSError as error:
            raise ControlError(f"{verb} {self.folder / 'cpu.max'}: {error.strerror or error}") from error


def cpu_quota(name: str, root: Path = CGROUP, never: frozenset[str] = frozenset()) -> CpuQuota:
    """Return the control called `cgroup:/path`.

    `never` are groups whose processes must not be slowed: the actuator's own and the asking daemon's.
    Raises ControlError for a path that leads elsewhere, for the root, for a group that holds one of `never`
    and for one without the cpu controller.
    """
    path = name.removeprefix(PREFIX)
    parts = path.split("/")[1:]
    if not path.startswith("/") or not all(part and part not in (".", "..") for part in parts):
        raise ControlError(f"set {name!r}: write the group's path as /proc/PID/cgroup has it, below {root}")
    for other in never:
        if other == path or other.startswith(path + "/"):
            raise ControlError(f"set {name}: greend itself runs in it, and would be slowed with it")
    folder = root / path.lstrip("/")
    if folder.resolve() != root.resolve() / path.lstrip("/"):
        raise ControlError(f"set {name}: a link on the way leads elsewhere")
    if not (folder / "cpu.max").is_file():
        raise ControlError(
            f"set {name}: {folder}/cpu.max is not there: the group has ended, the machine runs cgroup v1, "
            "or the group's parent does not hand the cpu controller down (systemd: CPUAccounting=yes)"
        )
    return CpuQuota(folder, path, os.cpu_count() or 1)


def group_of(pid: int | str, proc: Path = Path("/proc")) -> str | None:
    """Return the cgroup v2 path of a process; None when it is gone, or has none."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    return next((line[3:] for line in lines if line.startswith("0::")), None)
