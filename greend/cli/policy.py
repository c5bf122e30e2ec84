"""`greend policy`: named rules for jobs at times of day; what they would have saved; and setting them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from greend import wire
from greend.cli import options
from greend.cli.output import approx, console, plain, print_json, table
from greend.cli.when import local_now, parse_when
from greend.client import Client
from greend.errors import DaemonNotRunning, GreendError, NotFound, UsageError
from greend.units import format_duration, format_energy, nearest

if TYPE_CHECKING:
    from greend.cli.past import Course
    from greend.store.jobs import JobSummary

MAIN_KEYS = ("mode", "when", "jobs")
"""Keys of a rule that have a column of their own in the list."""


@click.group(invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> int | None:
    """Named rules for jobs: what they may use at which hours. Alone it lists them.

    A rule advises (`greend why` says what it would have done) until its `mode` is `act`.
    """
    if context.invoked_subcommand is not None:
        return None
    _list(_rules(None), as_json=False)
    return 0


@command.command("list")
@options.socket
@options.as_json
def list_(socket_path: Path | None, as_json: bool) -> int:
    """List the rules of the settings, and those that were set by command."""
    _list(_rules(socket_path), as_json)
    return 0


@command.command()
@click.argument("name")
@options.socket
@options.as_json
def show(name: str, socket_path: Path | None, as_json: bool) -> int:
    """Show one rule as it would stand in the settings."""
    rule = _rule(name, socket_path)
    if as_json:
        print_json({"policy": asdict(rule)})
    else:
        print(f"# from {'the settings' if rule.origin == 'settings' else 'greend policy set'}")
        print(f"[policies.{rule.name}]")
        for key, value in rule.rule.items():
            print(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    return 0


@command.command("set")
@click.argument("name")
@click.argument("keys", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--remove", is_flag=True, help="Take the rule away instead.")
@options.socket
@options.as_json
def set_(name: str, keys: tuple[str, ...], remove: bool, socket_path: Path | None, as_json: bool) -> int:
    """Set keys of the rule NAME, with the names that they have in the settings; others stay.

    As in `greend policy set night when=22:00-06:00 power=40W mode=act`. An empty value takes a key away. The
    rule holds from now on, also after a restart.
    """
    if remove == bool(keys):
        raise UsageError(f"set policy {name}: name its keys, as when=22:00-06:00 power=40W, or --remove it")
    body: dict[str, Any] | None = None
    if not remove:
        before = next((rule.rule for rule in _rules(socket_path) if rule.name == name), {})
        said = dict(_pair(text) for text in keys)
        body = {key: value for key, value in {**before, **said}.items() if value != ""}
    elif (rule := _rule(name, socket_path)).origin == "settings":
        raise UsageError(f"remove policy {rule.name}: it stands in the settings file; take it out there")
    Client(socket_path).post("/policies", wire.RuleRequest(name, body))
    if as_json:
        print_json({"policy": {"name": name, "rule": body}})
    else:
        print(f"policy {name} is {'gone' if body is None else 'set; `greend policy test` rehearses it'}")
    return 0


@command.command()
@click.argument("name")
@click.option("--since", default="30d", show_default=True, help="Jobs that started since then.")
@click.option(
    "--limit", "-n", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many."
)
@options.where
@options.as_json
def test(
    name: str, since: str, limit: int, database: Path | None, socket_path: Path | None, as_json: bool
) -> int:
    """Rehearse the rule NAME over the jobs that ran: what it would have saved. Changes nothing."""
    from greend.cli import past
    from greend.governor import rules

    wall_ns = parse_when(since, local_now()).timestamp() * 1e9
    rule = rules.parse(name, _rule(name, socket_path).rule)
    with options.history(database, socket_path) as store:
        ended = past.all_ended(store, limit, wall_ns)
    tried: list[tuple[JobSummary, Course, Course]] = []
    for one in ended:
        try:
            facts = one.facts()
        except NotFound:
            continue  # no agent was attached: nothing could have been turned
        limits = one.summary.job.limits
        tried.append((one.summary, past.rehearsed(facts, limits), past.rehearsed(facts, limits, (rule,))))
    if as_json:
        rows = [{"job": f.job.id, "without": asdict(a), "under": asdict(b)} for f, a, b in tried]
        print_json({"policy": name, "jobs": rows, "saved_j": _saved(tried)})
    else:
        _print_test(name, tried)
    return 0


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"read {text!r} as a key of a policy: write KEY=VALUE, as power=40W")
    try:
        read = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value  # words such as 22:00-06:00 or 40W
    return key, read if isinstance(read, str | int | float | list) else value


def _rules(socket_path: Path | None) -> list[wire.RuleNow]:
    """Return the daemon's rules; those of the settings file where no daemon runs."""
    try:
        return [wire.RuleNow(**rule) for rule in Client(socket_path).get("/policies")]
    except DaemonNotRunning:
        policies = options.settings().policies
        return [wire.RuleNow(name, rule, "settings") for name, rule in policies.items()]


def _rule(name: str, socket_path: Path | None) -> wire.RuleNow:
    found = _rules(socket_path)
    for rule in found:
        if rule.name == name:
            return rule
    hint = nearest(name, [rule.name for rule in found]) or "; `greend policy` lists those there are"
    raise NotFound(f"find policy {name!r}: there is none of that name{hint}")


def _list(found: Sequence[wire.RuleNow], as_json: bool) -> None:
    if as_json:
        print_json({"policies": [asdict(rule) for rule in found]})
        return
    if not found:
        example = "`greend policy set night when=22:00-06:00 power=40W` makes one"
        console().print(Text(f"no policy is set; {example}", style="dim"))
        return
    rows: list[list[str | Text]] = [
        [
            rule.name,
            _mode(str(rule.rule.get("mode", "advise"))),
            str(rule.rule.get("when", "always")),
            str(rule.rule.get("jobs", "all")),
            plain("   ".join(_words(rule.rule))),
            rule.origin,
        ]
        for rule in found
    ]
    columns = ["policy", "mode", "when", "jobs", "what", "from"]
    console().print(table(columns, rows, left=range(6), wrap=(4,)))


def _mode(mode: str) -> Text:
    return Text(mode, style="green" if mode == "act" else "magenta")


def _words(rule: Mapping[str, Any]) -> list[str]:
    return [f"{key} {value}" for key, value in rule.items() if key not in MAIN_KEYS]


def _saved(tried: Sequence[tuple[JobSummary, Course, Course]]) -> float:
    return sum((without.energy_j or 0.0) - (under.energy_j or 0.0) for _, without, under in tried)


def _print_test(name: str, tried: Sequence[tuple[JobSummary, Course, Course]]) -> None:
    out = console()
    if not tried:
        raise GreendError(
            f"rehearse policy {name}: no job of that time can be rehearsed, since the levels of none were "
            "measured; look further back with --since 90d"
        )
    rows: list[list[str | Text]] = [
        [
            found.job.id,
            found.job.name,
            approx(format_energy(without.energy_j), found.quality.value),
            approx(format_energy(under.energy_j), found.quality.value),
            _change(under.energy_j, without.energy_j),
            format_duration(under.seconds),
            _change(under.seconds, without.seconds),
            f"{under.quality:.3f}",
        ]
        for found, without, under in tried
    ]
    columns = ["job", "name", "energy", "under it", "", "time", "", "quality"]
    out.print(table(columns, rows, left=(0, 1), wrap=(1,)))
    before_j = sum(without.energy_j or 0.0 for _, without, _ in tried)
    before_s = sum(without.seconds for _, without, _ in tried)
    after_s = sum(under.seconds for _, _, under in tried)
    saved_j = _saved(tried)
    jobs = "1 job" if len(tried) == 1 else f"{len(tried)} jobs"
    words = f"({_change(before_j - saved_j, before_j)}) over {jobs}, at {_change(after_s, before_s)} time"
    out.print(Text.assemble(f" {name} would have saved ", (format_energy(saved_j), "bold"), f" {words}"))


def _change(after: float | None, before: float | None) -> str:
    if not before or after is None:
        return "?"
    return f"{(after / before - 1) * 100:+.1f} %"
