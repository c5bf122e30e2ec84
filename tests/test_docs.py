"""The docs are tests: every command, option, setting and exit code stands in the README."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from greend.cli import COMMANDS
from greend.cli.help import EXIT_CODES
from greend.config import Config
from greend.errors import GreendError

README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_in_the_readme(name):
    command = importlib.import_module(f"greend.cli.{name}").command
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
        for key in getattr(Config(), section).__struct_fields__
    }

    assert [name for name in settings if name not in rows] == []
    for name, default in settings.items():
        if isinstance(default, float):
            assert float(rows[name].split("|")[2]) == default, name


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
