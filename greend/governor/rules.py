"""A named policy rule of the settings: which jobs, at which hours, are held to what."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import time as TimeOfDay
from fnmatch import fnmatchcase
from typing import Any

from greend.errors import ConfigError, UnitError
from greend.governor.pressure import KINDS
from greend.types import Job, Limits
from greend.units import nearest, parse_carbon, parse_cost, parse_duration, parse_energy, parse_power

MODES = ("advise", "act")
INFEASIBLE = ("run_level_0", "stop_at_checkpoint", "pause")
ORDERS = ("rising", "mixed")


@dataclass(frozen=True, slots=True)
class Hours:
    """A time of day, from `begin` up to `end`; past midnight where the end comes first."""

    begin: TimeOfDay
    end: TimeOfDay

    def holds(self, at: TimeOfDay) -> bool:
        """Whether a local time is within it."""
        if self.begin <= self.end:
            return self.begin <= at < self.end
        return at >= self.begin or at < self.end


@dataclass(frozen=True, slots=True)
class Rule:
    """What the jobs that it is for are held to, at its hours."""

    name: str
    mode: str = "advise"
    """`advise`: it is only said what it would do; `act`: it is done."""
    when: Hours | None = None
    """None: always."""
    jobs: tuple[str, ...] = ("*",)
    """Shell patterns of job names."""
    limits: Limits = Limits()  # noqa: RUF009 - frozen, as this is
    machine_power_w: float | None = None
    """What all jobs together may draw over `limits.window_s`, in equal shares."""
    level: int | None = None
    """The highest level allowed."""
    level_at_least: int | None = None
    """Budgets and users may not push the job below this level; caps and safety may."""
    pressures: tuple[tuple[str, float], ...] = ()
    """Kinds of pressure, and the threshold of each: shares between 0 and 1, °C."""
    lasting_s: float = 5.0
    """How long a pressure lasts before something is done about it."""


def applies(rule: Rule, job: Job, at: TimeOfDay) -> bool:
    """Whether a rule is for a job at a local time of day."""
    named = any(fnmatchcase(job.name, pattern) for pattern in rule.jobs)
    return named and (rule.when is None or rule.when.holds(at))


def parse(name: str, body: Mapping[str, Any]) -> Rule:
    """Return the rule that a table `[policies.NAME]` describes.

    The keys: `mode` (advise, act), `when` ("22:00-06:00", local time), `jobs` ("train*", or a list of such);
    of each job `energy` ("30kJ"), `carbon` ("20g"), `cost`, `power` ("40W") over `window` ("10s"),
    `on_infeasible`, `order`, `level` (the highest one), `level_at_least`; of all jobs together
    `machine_power` ("200W"); and pressures with what is too much of them: `cpu_busy_above` ("90%" of all
    cores), `gpu_busy_above`, `cpu_stalled_above` ("40%" of the time, not of the cores),
    `memory_stalled_above`, `io_stalled_above`, `memory_free_below` ("10%"), `temperature_above` ("80C"), each
    `lasting` ("5s"). Raises ConfigError, which names the key and what was expected.
    """
    if not name:
        raise ConfigError("read a policy: it needs a name")
    fields: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    pressures: list[tuple[str, float]] = []
    for key, value in body.items():
        try:
            if key in _LIMITS:
                field, read = _LIMITS[key]
                limits[field] = read(value)
            elif key in _PRESSURES:
                pressures.append((_PRESSURES[key], _threshold(value, _PRESSURES[key])))
            elif key in _FIELDS:
                field, read = _FIELDS[key]
                fields[field] = read(value)
            else:
                known = (*_FIELDS, *_LIMITS, *_PRESSURES)
                raise ValueError(f"unknown key{nearest(key, known) or '; known: ' + ', '.join(known)}")
        except (ValueError, UnitError) as error:
            raise ConfigError(f"read policy {name!r}: {key}: {error}") from error
    if "window_s" in limits and "power_w" not in limits and "machine_power_w" not in fields:
        raise ConfigError(f"read policy {name!r}: window: it is about a power; name it with power, as 40W")
    return Rule(name, limits=Limits(**limits), pressures=tuple(pressures), **fields)


def _text(parse_text: Callable[[str], Any]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError(f"{value!r}: write it as text with its unit")
        return parse_text(value)

    return read


def _cost(value: Any) -> float:
    return parse_cost(str(value))


def _one_of(words: tuple[str, ...]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"{value!r}: one of {', '.join(words)} was expected")
        return str(value)

    return read


def _level(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r}: a resource level is a whole number, 0 the least")
    return value


def _patterns(value: Any) -> tuple[str, ...]:
    patterns = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
    if not patterns or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise ValueError(f"{value!r}: write patterns of job names, as 'train*' or ['train*', 'eval']")
    return patterns


def _hours(value: Any) -> Hours:
    found = re.fullmatch(
        r"\s*(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})\s*", value if isinstance(value, str) else ""
    )
    try:
        if found is None:
            raise ValueError
        numbers = [int(part) for part in found.groups()]
        # A day ends at 24:00, and the next one begins at 0:00.
        begin, end = (TimeOfDay(hour % 24 if hour == 24 and not minute else hour, minute)
                      for hour, minute in (numbers[:2], numbers[2:]))  # fmt: skip
    except ValueError:
        raise ValueError(f"{value!r}: write it as 22:00-06:00, in local time") from None
    if begin == end:
        raise ValueError(f"{value!r}: it begins where it ends; leave `when` out for always")
    return Hours(begin, end)


def _threshold(value: Any, kind: str) -> float:
    unit = "%" if KINDS[kind].unit == "%" else "C"
    example = "40%" if unit == "%" else "80C"
    found = re.fullmatch(rf"\s*(\d+(?:\.\d+)?)\s*°?{unit}\s*", value if isinstance(value, str) else "")
    if found is None:
        raise ValueError(f"{value!r}: write it with its unit, as {example!r}")
    number = float(found[1])
    if unit == "C":
        return number
    if not 0 < number < 100:
        raise ValueError(f"{value!r}: a share lies between 0% and 100%")
    return number / 100


_FIELDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "mode": ("mode", _one_of(MODES)),
    "when": ("when", _hours),
    "jobs": ("jobs", _patterns),
    "level": ("level", _level),
    "level_at_least": ("level_at_least", _level),
    "lasting": ("lasting_s", _text(parse_duration)),
    "machine_power": ("machine_power_w", _text(parse_power)),
}
_LIMITS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "energy": ("energy_j", _text(parse_energy)),
    "carbon": ("carbon_g", _text(parse_carbon)),
    "cost": ("cost", _cost),
    "power": ("power_w", _text(parse_power)),
    "window": ("window_s", _text(parse_duration)),
    "on_infeasible": ("on_infeasible", _one_of(INFEASIBLE)),
    "order": ("order", _one_of(ORDERS)),
}
_PRESSURES = {f"{name}_{'below' if kind.below else 'above'}": name for name, kind in KINDS.items()}
