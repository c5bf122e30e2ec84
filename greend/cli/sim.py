"""`greend sim`: rehearse limits on a job that is made up, before they touch a real one."""

from __future__ import annotations

import random
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from greend.choice import parse_levels
from greend.cli import options
from greend.cli.limits import DURATION, ENERGY, POWER, Quantity, asked, changed
from greend.cli.output import console, force, hanging, level_style, plain, print_json, rule, table
from greend.cli.plot import level_chart
from greend.cli.when import local_now
from greend.errors import ConfigError, UsageError
from greend.types import Limits
from greend.units import format_duration, format_energy, format_power, parse_energy, parse_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from greend.simulation.rehearse import Facts
    from greend.simulation.run import Outcome


class Share(float):
    """A budget as a share of what the job would use with nothing held down."""


SHARE = Quantity("share", parse_share)
ENERGY_OR_SHARE = Quantity(
    "energy|share", lambda text: Share(parse_share(text)) if "%" in text else parse_energy(text)
)


@click.command()
@asked("--budget", ENERGY_OR_SHARE)
@click.option("--levels", default="4", show_default=True, help="How many, or what each costs, as 0.25,0.5,1.")
@click.option(
    "--steps", type=click.IntRange(1, 10_000_000), default=20_000, show_default=True, help="Optimizer steps."
)
@click.option(
    "--step-energy", type=ENERGY, default="300J", show_default=True, help="Joules of a step at the top."
)
@click.option("--step-time", type=DURATION, default="1s", show_default=True, help="How long it takes.")
@click.option("--idle", type=POWER, help="Drawn also while the job waits; a fifth of full power unless said.")
@click.option("--noise", type=SHARE, default="6%", show_default=True, help="How much steps scatter.")
@click.option(
    "--wrong", type=SHARE, default="25%", show_default=True, help="How far the agent's estimates are off."
)
@click.option(
    "--drift", type=SHARE, default="15%", show_default=True, help="How much dearer steps get in mid-run."
)
@click.option(
    "--contention", type=SHARE, default="20%", show_default=True, help="Share of the steps with a neighbour."
)
@click.option(
    "--switch", type=DURATION, default="1s", show_default=True, help="What a change of level takes."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed is another job.")
@click.option("--why", is_flag=True, help="Each decision with its reason.")
@options.as_json
def command(named: dict[str, Any], levels: str, seed: int, why: bool, as_json: bool, **made_up: Any) -> int:
    """Rehearse limits on a job that is made up: which levels it would run at, and what it would use.

    `greend sim --budget 60%` gives it 60 % of what it would use with nothing held down. The governor is the
    daemon's own; the job is arithmetic. In the neighbour's stretch a step takes a fifth longer.
    """
    from greend.simulation.rehearse import rehearse

    facts = _facts(levels, seed, **made_up)
    settings = options.settings()
    if isinstance(named.get("energy_j"), Share):
        named["energy_j"] = _of_free(facts, named["energy_j"])
    limits = changed(Limits(), named)
    if limits.carbon_g is not None and facts.intensity is None:
        raise ConfigError("rehearse a carbon budget: no intensity is set; set pricing.intensity_g_per_kwh")
    if limits.cost is not None and facts.price_per_kwh is None:
        raise ConfigError("rehearse a budget of money: no price is set; set pricing.price_per_kwh")
    courses = {
        "free": rehearse(facts, Limits(), settings=settings.governor, seed=seed),
        "held": rehearse(facts, limits, settings=settings.governor, seed=seed),
    }
    if as_json:
        print_json({"limits": asdict(limits), "seed": seed, **{k: _json(o) for k, o in courses.items()}})
    else:
        _print(facts, limits, courses, why)
    return 0


def _facts(
    levels: str,
    seed: int,
    steps: int,
    step_energy: float,
    step_time: float,
    idle: float | None,
    noise: float,
    wrong: float,
    drift: float,
    contention: float,
    switch: float,
) -> Facts:
    """Return the job that the options make up. Raises UsageError where they contradict each other."""
    from greend.governor.conditions import Intensity
    from greend.governor.hull import quality_by_cost
    from greend.simulation.rehearse import Facts
    from greend.simulation.workload import Contention, misjudged

    for name, share in (("noise", noise), ("wrong", wrong), ("contention", contention)):
        if not 0 <= share < 1:
            raise UsageError(f"--{name} {share * 100:g}%: it lies from 0% to below 100%")
    if drift <= -1:
        raise UsageError(
            f"--drift {drift * 100:g}%: nothing would be left of a step; more than -100% is meant"
        )
    try:
        asked_for = parse_levels(levels)
    except ValueError as error:
        raise UsageError(f"--levels: {error}") from error
    count = asked_for if isinstance(asked_for, int) else len(asked_for)
    costs = tuple((k + 1) / count for k in range(count)) if isinstance(asked_for, int) else asked_for
    power_w = step_energy / step_time
    idle_w = power_w / 5 if idle is None else idle
    if idle_w >= power_w:
        raise UsageError(
            f"--idle {format_power(idle_w)}: a step draws {format_power(power_w)} (--step-energy over "
            "--step-time), and idle lies below that"
        )
    pricing = options.settings().pricing
    g_per_kwh = pricing.intensity_g_per_kwh
    return Facts(
        costs=misjudged(costs, wrong, random.Random(seed)),
        step_j=tuple(step_energy * cost for cost in costs),
        step_s=tuple(step_time * cost for cost in costs),
        steps=steps,
        switch_j=switch * power_w / 2,
        switch_s=switch,
        quality=quality_by_cost(costs),
        idle_w=idle_w,
        noise=noise,
        drift=drift,
        contention=(Contention(0.3, 0.3 + contention * 0.7, 1.2),) if contention else (),
        started_wall_ns=round(local_now().timestamp() * 1e9),
        price_per_kwh=pricing.price_per_kwh,
        intensity=Intensity(g_per_kwh, source="settings") if g_per_kwh is not None else None,
    )


def _of_free(facts: Facts, share: float) -> float:
    if share <= 0:
        raise UsageError(f"--budget {share * 100:g}%: a share of what the job would use is more than 0%")
    return share * facts.free_j()


def _json(outcome: Outcome) -> dict[str, Any]:
    decisions = [asdict(decision) for decision in outcome.decisions]
    return {
        "energy_j": outcome.used_j,
        "seconds": outcome.seconds,
        "steps_done": outcome.steps_done,
        "quality": outcome.quality,
        "changes": outcome.switches,
        "steps_at": outcome.steps_at,
        "carbon_g": outcome.emitted_g,
        "stopped": outcome.stopped,
        "feasible": not outcome.infeasible,
        "decisions": decisions,
    }


def _print(facts: Facts, limits: Limits, courses: dict[str, Outcome], why: bool) -> None:
    out, top, held = console(), len(facts.costs) - 1, courses["held"]
    rule(out, "sim")
    words = [f"{facts.steps} steps of {format_energy(facts.step_j[-1])} at the top"]
    if limits.energy_j is not None:
        words.append(f"budget {format_energy(limits.energy_j)}")
    if limits.power_w is not None:
        words.append(f"at most {format_power(limits.power_w)}")
    out.print(plain(" " + "   ".join(words), style="bold"))
    changes = [(0.0, top), *((float(d.at_step), d.level) for d in held.decisions)]
    out.print(level_chart(changes, float(held.steps_done), top))
    out.print(table(["", *courses], _rows(list(courses.values()), top)))
    if why:
        rows = [
            [
                Text(f"step {decision.at_step}", style="dim"),
                Text(f"level {decision.level}", style=level_style(decision.level, top)),
                Text.assemble(force(decision), plain(decision.reason)),
            ]
            for decision in held.decisions
        ]
        out.print(hanging(rows, figures=(0,)))
    elif held.infeasible:
        out.print(plain(f" {held.infeasible[-1].reason}", style="bold red"))


def _rows(courses: Sequence[Outcome], top: int) -> list[list[str | Text]]:
    rows: list[list[str | Text]] = [
        ["energy", *(format_energy(o.used_j) for o in courses)],
        ["average power", *(format_power(o.used_j / o.seconds if o.seconds else None) for o in courses)],
        ["time", *(format_duration(o.seconds) for o in courses)],
        ["steps", *(str(o.steps_done) for o in courses)],
        ["quality", *(f"{o.quality:.3f}" for o in courses)],
        ["changes", *(str(o.switches) for o in courses)],
    ]
    for level in range(top, -1, -1):
        name = f"at level {level}" + (", the top" if level == top else "")
        made = [f"{o.steps_at[level]} ({o.steps_at[level] / max(o.steps_done, 1):.0%})" for o in courses]
        rows.append([Text(name, style=level_style(level, top)), *made])
    return rows
