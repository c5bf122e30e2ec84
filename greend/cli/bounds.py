"""One decision in full: what every constraint allowed, which one bound, and what it was reckoned from."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from rich.text import Text

from greend.cli.output import force, hanging, level_style, plain, table
from greend.types import Action
from greend.units import (
    format_carbon,
    format_duration,
    format_energy,
    format_error,
    format_power,
    significant,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from greend.types import Bound, Decision

_UNITS: dict[str, Callable[[float], str]] = {
    "j": format_energy,
    "w": format_power,
    "g": format_carbon,
    "s": format_duration,
    "c": lambda value: f"{value:.0f} °C",
    "share": lambda value: f"{value * 100:.0f} %",
}
"""How a figure is written, by the last word of its name."""


def print_moment(out: Console, decision: Decision, top: int) -> None:
    """Print what held from a decision on, and why, in words and as a table of all bounds."""
    at = datetime.fromtimestamp(decision.at_wall_ns / 1e9).astimezone().strftime("%H:%M:%S")
    level = Text(f"level {decision.level} of {top}", style=f"bold {level_style(decision.level, top)}")
    out.print(Text.assemble((f" {at}   step {decision.at_step}   ", "dim"), level, "   ", force(decision)))
    lines = [[Text(" why", "dim"), _why(decision)]]
    if known := figures(decision.inputs):
        lines.append([Text(" known", "dim"), plain("   ".join(known))])
    out.print(hanging(lines))
    if decision.bounds:
        columns = ["", "constraint", "level", "pace", "power", "says"]
        rows = [_bound(bound, decision) for bound in decision.bounds]
        out.print(table(columns, rows, left=(0, 1, 5), wrap=(5,)))


def _why(decision: Decision) -> Text:
    if any((bound.by, bound.reason) == (decision.by, decision.reason) for bound in decision.bounds):
        return Text.assemble((decision.by, "bold"), " binds")  # its reason stands in the table
    by = f"{decision.by}: " if decision.by else ""
    return Text.assemble((by, "bold"), plain(decision.reason, "" if decision.feasible else "bold red"))


def _bound(bound: Bound, decision: Decision) -> list[str | Text]:
    binding = bound.by == decision.by or _holds(bound, decision)
    action = "" if bound.action is Action.RUN else f"{bound.action}: "
    advised = ("only advised: ", "magenta") if bound.advised else ""
    return [
        Text("→" if binding else "", style="bold cyan"),
        Text(bound.by, style="bold" if binding else ""),
        f"≤ {bound.level}" if bound.floor == 0 else f"{bound.floor} to {bound.level}",
        f"{bound.pace * 100:.0f} %" if bound.pace < 1 else "-",
        format_power(bound.power_w) if bound.power_w is not None else "-",
        Text.assemble(advised, plain(f"{action}{bound.reason}", "" if bound.feasible else "bold red")),
    ]


def _holds(bound: Bound, decision: Decision) -> bool:
    """Whether a bound holds the power, the pace or the action, while another one holds the level."""
    return not bound.advised and (
        (bound.power_w is not None and bound.power_w == decision.power_w)
        or (bound.pace < 1 and bound.pace == decision.pace)
        or (bound.action is not Action.RUN and bound.action is decision.action)
    )


def figures(known: Mapping[str, float]) -> list[str]:
    """Return figures in words, by the unit at the end of each name: `left_j` is `left 104 J`.

    Those of every level stand together, with their error at 95 % where one is known: `step_j_0` with
    `step_sd_0`, a relative standard deviation.
    """
    words: list[str] = []
    levels: dict[tuple[str, str], list[str]] = {}
    for name, value in known.items():
        match = re.fullmatch(r"(.+)_([a-z]+)_(\d+)", name)
        if match is None:
            words.append(_figure(name, value))
        elif match[2] != "sd":
            deviation = known.get(f"{match[1]}_sd_{match[3]}")
            error = f" {format_error(1.96 * deviation)}" if deviation is not None else ""
            each = levels.setdefault((match[1].replace("_", " "), match[2]), [])
            each.append(f"{_UNITS.get(match[2], significant)(value)}{error}")
    return words + [
        f"{name} at level 0 to {len(each) - 1}: {', '.join(each)}" for (name, _), each in levels.items()
    ]


def _figure(name: str, value: float) -> str:
    words, _, unit = name.rpartition("_")
    if unit in _UNITS and words:
        return f"{words.replace('_', ' ')} {_UNITS[unit](value)}"
    number = significant(value) if abs(value) < 100 and value != round(value) else f"{value:.0f}"
    return f"{name.replace('_', ' ')} {number}"
