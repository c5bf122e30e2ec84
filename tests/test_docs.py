"""The docs are tests: every command, option, setting and exit code stands in the README."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from greend.cli import COMMANDS, root
from greend.cli.help import EXIT_CODES
from greend.config import Config
from greend.errors import ConfigError, GreendError
from greend.governor import rules

README = (Path(__file__).parent.parent / "README.md").read_text()


def commands() -> Iterator[tuple[str, click.Command]]:
    """All commands and the commands below them, by the words that call them."""
    for name in COMMANDS:
        command = root.get_command(click.Context(root), name)
        yield name, command
        for word, inner in getattr(command, "commands", {}).items():
            yield f"{name} {word}", inner


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_command_and_option_is_in_the_readme(name, command):
    options = [o for p in command.params for o in p.opts if o.startswith("--")]

    assert f"greend {name}" in README
    assert [o for o in options if o not in README] == []
    assert command.help
    assert [
        p.name for p in command.params if p.param_type_name == "option" and not getattr(p, "help", None)
    ] == []


def test_every_setting_is_in_the_readme_with_its_default():
    rows = {line.split("|")[1].strip(): line for line in README.splitlines() if line.startswith("| `")}
    settings = {
        f"`{section}.{key}`": getattr(getattr(Config(), section), key)
        for section in Config.__struct_fields__
        if section != "policies"  # a table of tables, by names of the user's
        for key in getattr(Config(), section).__struct_fields__
    } | {"`policies.NAME`": {}}

    assert [name for name in settings if name not in rows] == []
    for name, default in settings.items():
        if isinstance(default, float):
            assert float(rows[name].split("|")[2]) == default, name


def test_every_key_of_a_policy_is_in_the_readme_and_its_example_is_one():
    table = README.partition("| key | is |")[2].partition("###")[0]
    with pytest.raises(ConfigError) as error:
        rules.parse("night", {"unlike any of them": 1})
    known = str(error.value).partition("known: ")[2].split(", ")
    example = tomllib.loads("[policies" + README.partition("```toml\n[policies")[2].partition("```")[0])

    assert len(known) > 10
    assert [key for key in known if f"`{key}`" not in table] == []
    assert rules.parse("night", example["policies"]["night"]).jobs == ("train*", "big")


def test_every_exit_code_is_in_the_readme_and_in_the_help():
    codes = {error.exit_code for error in _tree(GreendError)} | {125, 126, 127}
    table = README.partition("### Exit codes")[2].partition("###")[0]

    for text in (EXIT_CODES, table):
        assert [code for code in codes if not re.search(rf"\b{code}\b", text)] == []
    explained = [word for line in EXIT_CODES.splitlines() if (word := line.split()[0])[0].isdigit()]
    assert [code for code in explained if code not in table] == []


def _tree(kind: type[GreendError]) -> list[type[GreendError]]:
    return [kind, *(e for child in kind.__subclasses__() for e in _tree(child))]


def test_the_readme_shows_real_output_of_the_two_commands():
    first_screen = "\n".join(README.splitlines()[:60])

    assert "make demo" in first_screen
    assert "make test" in first_screen
    assert "@@" not in README
