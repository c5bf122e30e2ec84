"""Units at the edge: SI inside, people's units when reading a budget and when printing."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable

from greend.errors import UnitError

ENERGY_J = {"mJ": 1e-3, "J": 1.0, "kJ": 1e3, "MJ": 1e6, "GJ": 1e9,
            "mWh": 3.6, "Wh": 3.6e3, "kWh": 3.6e6, "MWh": 3.6e9}  # fmt: skip
POWER_W = {"mW": 1e-3, "W": 1.0, "kW": 1e3, "MW": 1e6}
CARBON_G = {"mg": 1e-3, "g": 1.0, "kg": 1e3, "t": 1e6}
TIME_S = {"ms": 1e-3, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}

_QUANTITY = re.compile(r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)\s*([^\d\s]*)\s*", re.IGNORECASE)


def parse_energy(text: str) -> float:
    """Joules in a text such as `30kJ`, `0.5 kWh` or `8 Wh`.

    Raises UnitError when the number or the unit cannot be understood, or the amount is not positive.
    """
    return _parse(text, ENERGY_J, "an energy", "30kJ or 0.5kWh")


def parse_power(text: str) -> float:
    """Watts in a text such as `40 W` or `1.2kW`.

    Raises UnitError when the number or the unit cannot be understood, or the amount is not positive.
    """
    return _parse(text, POWER_W, "a power", "40W or 1.2kW")


def parse_carbon(text: str) -> float:
    """Grams of CO2 equivalent in a text such as `20g` or `1.5 kg`.

    Raises UnitError when the number or the unit cannot be understood, or the amount is not positive.
    """
    return _parse(text, CARBON_G, "an emission", "20g or 1.5kg")


def parse_cost(text: str) -> float:
    """Money in a text such as `0.10`, in the currency of the price per kWh.

    Raises UnitError when it is no number, or not positive.
    """
    try:
        return _positive(float(text), text, "a cost")
    except ValueError:
        raise UnitError(
            f"read {text!r} as a cost: write a number alone, as 0.10, in the currency of the price per kWh"
        ) from None


def parse_share(text: str) -> float:
    """A change in per cent, as a share: `-20%` is -0.2.

    Raises UnitError when it is no number with `%` behind it.
    """
    match = re.fullmatch(r"\s*([+-]?\d+(?:\.\d+)?)\s*%\s*", text)
    if match is None:
        raise UnitError(f"read {text!r} as a change: write for example -20%")
    return float(match[1]) / 100


def parse_duration(text: str) -> float:
    """Seconds in a text such as `90s`, `10m`, `2h` or `7d`.

    Raises UnitError when the number or the unit cannot be understood, or the amount is not positive.
    """
    return _parse(text, TIME_S, "a duration", "10m or 2h")


def _parse(text: str, units: dict[str, float], what: str, example: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise UnitError(f"read {text!r} as {what}: no number in it; write for example {example}")
    number, unit = match.groups()
    if not unit:
        raise UnitError(f"read {text!r} as {what}: the unit is missing; write for example {example}")
    factor = units.get(unit)
    if factor is None:
        known = ", ".join(units)
        raise UnitError(
            f"read {text!r} as {what}: unknown unit {unit!r}{nearest(unit, units)}; known: {known}"
        )
    return _positive(float(number) * factor, text, what)


def _positive(value: float, text: str, what: str) -> float:
    if not (value > 0 and math.isfinite(value)):
        raise UnitError(f"read {text!r} as {what}: it must be more than zero")
    return value


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the known word nearest to `word`, or an empty string."""
    lowered = {w.lower(): w for w in known}
    found = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.5)
    return f" (did you mean {lowered[found[0]]!r}?)" if found else ""


def significant(value: float, digits: int = 3) -> str:
    """Write a number with so many significant digits and without an exponent: 0.0412, 41.2, 4120."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "?"
    text = f"{value:#.{digits}g}"
    if "e" not in text:  # a decision's reason has a dozen figures, each turn: 0.5 instead of 1.3 µs
        return text.removesuffix(".")
    # The exponent after rounding, or 9.999 would get a digit too many.
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    return f"{value:.{min(max(0, digits - 1 - exponent), 9)}f}"


def format_energy(energy_j: float | None, unit: str = "auto") -> str:
    """Write an energy for people: `?` when it is missing, the nearest of mJ, J, kJ, Wh, kWh otherwise.

    `auto` stays in joules up to 100 kJ, since a job's budget is thought of in joules, and turns to
    Wh and kWh above, since a machine's day is.
    """
    if energy_j is None:
        return "?"
    if unit == "auto":
        size = abs(energy_j)
        unit = "J" if size < 1e4 else "kJ" if size < 1e5 else "Wh" if size < 3.6e6 else "kWh"
        unit = "mJ" if 0 < size < 0.1 else unit
    return f"{significant(energy_j / ENERGY_J[unit])} {unit}"


def format_carbon(carbon_g: float | None) -> str:
    """Write an emission for people, in mg, g, kg or t of CO2 equivalent: `?` when it is missing."""
    if carbon_g is None:
        return "?"
    size = abs(carbon_g)
    unit = "mg" if 0 < size < 0.1 else "g" if size < 1e3 else "kg" if size < 1e6 else "t"
    return f"{significant(carbon_g / CARBON_G[unit])} {unit}"


def format_power(power_w: float | None) -> str:
    """Write a power for people: `?` when it is missing."""
    if power_w is None:
        return "?"
    if 0 < power_w < 1e-3:
        return "<1 mW"
    if 0 < abs(power_w) < 0.1:
        return f"{significant(power_w * 1e3)} mW"
    if abs(power_w) >= 1e4:
        return f"{significant(power_w / 1e3)} kW"
    return f"{significant(power_w)} W"


def format_duration(seconds: float | None) -> str:
    """Write a duration for people: `8.3 s`, `12m 08s`, `3h 05m`, `3d 04h`; `?` when it is missing."""
    if seconds is None:
        return "?"
    if seconds < 59.5:
        return f"{significant(seconds, 2) if seconds < 10 else round(seconds)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"


def format_error(relative: float | None) -> str:
    """Write a relative 95 % error: `±5 %`, or `±?` when nobody knows it."""
    return "±?" if relative is None or not math.isfinite(relative) else f"±{relative * 100:.0f} %"
