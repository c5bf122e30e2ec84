"""The docs are tests: every command, option, setting and exit code stands in the README."""

from __future__ import annotations

import importlib
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
    for section in Config.__struct_fields__:
        values = getattr(Config(), section)
        for key in values.__struct_fields__:
            [row] = [line for line in README.splitlines() if line.startswith(f"| `{section}.{key}` |")]
            default = getattr(values, key)
            if isinstance(default, float):
                assert float(row.split("|")[2]) == default


def test_every_exit_code_is_in_the_readme_and_in_the_help():
    codes = {error.exit_code for error in _tree(GreendError)} | {125, 126, 127}

    for code in codes:
        assert str(code) in EXIT_CODES
        assert str(code) in README


def _tree(kind: type[GreendError]) -> list[type[GreendError]]:
    return [kind, *(e for child in kind.__subclasses__() for e in _tree(child))]


def test_the_readme_shows_real_output_of_the_two_commands():
    first_screen = "\n".join(README.splitlines()[:60])

    assert "make demo" in first_screen
    assert "make test" in first_screen
    assert "@@" not in README
