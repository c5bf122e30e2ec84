"""What every control is: a limit of one device that can be read, turned, and put back as it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from greend.errors import ControlError

TAKEN = 0.02
"""A device may round what it is asked for by this share: RAPL knows eighths of a watt, NVML milliwatts."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a control stands."""

    value: float | None
    """In the control's unit; None: no limit."""
    raw: str
    """The same in the device's own words: what is compared, and what is put back."""
    window_s: float | None = None
    """Over which time the device averages; None: it does not say."""


class Control(Protocol):
    """One limit of one device. No method waits; each raises ControlError in words."""

    @property
    def name(self) -> str:
        """What it is called, the same for as long as the machine runs: `rapl:package-0:long_term`."""
        ...

    @property
    def kind(self) -> str:
        """`nvml`, `rapl` or `cgroup`."""
        ...

    @property
    def device(self) -> str:
        """What the sources of counters call the device: `gpu-0`, `package-0`; of a cgroup, its path."""
        ...

    @property
    def unit(self) -> str:
        """`W`, or `cores`."""
        ...

    def read(self) -> Setting:
        """Return where it stands."""
        ...

    def range(self, before: Setting) -> tuple[float, float]:
        """Return the least and the most that it may be set to; `before` is where it stood without us."""
        ...

    def words(self, value: float, window_s: float | None, before: Setting) -> str:
        """Return how the device is asked for the nearest value within its range."""
        ...

    def write(self, raw: str) -> None:
        """Ask the device for what `words` or an earlier `read` gave."""
        ...

    def energy_j(self) -> tuple[float, float] | None:
        """Return the device's own energy counter and the value at which it wraps (inf: never).

        None: it has no meter.
        """
        ...


def turn(control: Control, raw: str, wanted: float | None) -> Setting:
    """Write, read back, and return where the control stands now.

    Raises ControlError when the device did not take it: a write that went well says nothing yet.
    """
    control.write(raw)
    now = control.read()
    if now.raw == raw:
        return now
    if now.value is None or wanted is None or abs(now.value - wanted) > TAKEN * wanted:
        raise ControlError(
            f"set {control.name} to {say(wanted, control.unit)}: the device took the request and stands at "
            f"{say(now.value, control.unit)}; its firmware, or another program, holds it there"
        )
    return now


def clamp(value: float, least: float, most: float) -> float:
    """Return the nearest value that a control may be set to."""
    return min(max(value, least), most)


def say(value: float | None, unit: str) -> str:
    """Return a value for people."""
    return "no limit" if value is None else f"{value:.4g} {unit}"
