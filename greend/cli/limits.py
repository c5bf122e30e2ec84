"""What a job may use, as options: `greend run` and `greend budget set` ask the same."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import click

from greend.cli.when import local_now, parse_deadline
from greend.errors import UsageError
from greend.types import Limits
from greend.units import parse_carbon, parse_cost, parse_duration, parse_energy, parse_power, parse_share

T = TypeVar("T")

INFEASIBLE = ("run_level_0", "stop_at_checkpoint", "pause")
ORDERS = ("rising", "mixed")


class Quantity(click.ParamType):  # type: ignore[type-arg]  # generic in new releases of click only
    """A number with its unit; what cannot be read is said in the words of whoever parses it."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value in SI units; raises UnitError or UsageError."""
        return self._parse(value) if isinstance(value, str) else value


class Change(float):
    """A share by which something is to be changed: -0.2 is a fifth less."""


def parse_change(text: str) -> float:
    """Return joules for an energy, and a Change for `-20%`. Raises UnitError."""
    return Change(parse_share(text)) if "%" in text else parse_energy(text)


ENERGY = Quantity("energy", parse_energy)
CARBON = Quantity("carbon", parse_carbon)
COST = Quantity("cost", parse_cost)
ENERGY_OR_CHANGE = Quantity("energy|change", parse_change)
POWER = Quantity("power", parse_power)
DURATION = Quantity("duration", parse_duration)
DEADLINE = Quantity("time", lambda text: round(parse_deadline(text, local_now()).timestamp() * 1e9))

_OPTIONS = (
    click.option("--carbon", "carbon_g", type=CARBON, help="What it may emit, e.g. 20g."),
    click.option("--cost", type=COST, help="What it may cost, in the currency of the price per kWh."),
    click.option("--power", "power_w", type=POWER, help="Its average power over any --window, e.g. 40W."),
    click.option("--window", "window_s", type=DURATION, help="Over how long; 10s unless said."),
    click.option("--hard", is_flag=True, help="Never more, not even for an instant: hardware only."),
    click.option("--deadline", "deadline_wall_ns", type=DEADLINE, help="When it is to be done: 18:00 or 2h."),
    click.option(
        "--on-infeasible", type=click.Choice(INFEASIBLE), help="What follows when a budget cannot be met."
    ),
    click.option(
        "--order", type=click.Choice(ORDERS), help="Low levels first (for training), or the two best in turn."
    ),
)

_ENERGY_HELP = {
    "energy": "What it may use, e.g. 30kJ or 0.5kWh.",
    "energy|change": "What it might have used: 30kJ, or -20% of its budget (without one, of what it used).",
    "energy|share": "What it may use, e.g. 30kJ, or a share of what it would use free, e.g. 60%.",
}


def asked(energy: str, kind: Quantity = ENERGY) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Add the options of a job's limits, its energy under the name `energy` and read as `kind`.

    The command gets `named`: the fields of `Limits` that were named, by field.
    """

    def decorate(command: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(command)
        def with_limits(**given: Any) -> T:
            said = {field: given.pop(field, None) for field in Limits.__dataclass_fields__}
            named = {
                field: value for field, value in said.items() if value is not None and value is not False
            }
            return command(named=named, **given)

        budget = click.option(energy, "energy_j", type=kind, help=_ENERGY_HELP[kind.name])
        for option in (*reversed(_OPTIONS), budget):
            option(with_limits)
        return with_limits

    return decorate


def changed(limits: Limits, named: Mapping[str, Any]) -> Limits:
    """Return the limits with those that were named in place. Raises UsageError for what cannot be meant."""
    if "hard" in named and "window_s" in named:
        raise UsageError("--hard knows no window: such a cap holds at every instant; leave one of them out")
    now = replace(limits, **{**({"hard": False} if "window_s" in named else {}), **named})
    for field, option in (("hard", "--hard"), ("window_s", "--window")):
        if field in named and now.power_w is None:
            raise UsageError(f"{option} is about a power: name it with --power, as 40W")
    return now
