"""One tree of errors, each with its exit code."""

import importlib
import pkgutil
import re

import pytest

import greend
from greend import errors
from greend.cli.help import EXIT_CODES
from greend.errors import GreendError


def tree(kind: type[GreendError] = GreendError) -> list[type[GreendError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in tree(child))]


HERE = [kind for kind in tree() if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", HERE, ids=lambda kind: kind.__name__)
def test_the_drawing_of_the_tree_has_each_error_with_its_code(kind):
    [line] = [line for line in errors.__doc__.splitlines() if re.search(rf"\b{kind.__name__}\b", line)]

    assert int(line.split(kind.__name__)[1].split()[0]) == kind.exit_code


@pytest.mark.parametrize("kind", [k for k in HERE if k is not GreendError], ids=lambda kind: kind.__name__)
def test_the_drawing_puts_each_error_under_its_base(kind):
    lines = errors.__doc__.splitlines()
    at = next(i for i, line in enumerate(lines) if re.search(rf"\b{kind.__name__}\b", line))
    column = lines[at].index(kind.__name__)
    above = [
        line for line in lines[:at] if (found := re.search(r"[A-Z]\w+", line)) and found.start() < column
    ]
    base = above[-1]

    assert kind.__bases__[0].__name__ in base


def test_every_error_of_the_command_and_the_daemon_is_of_the_tree_and_says_what_it_is():
    for module in pkgutil.walk_packages(greend.__path__, "greend."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    for kind in tree():
        assert kind.__doc__
        assert re.search(rf"^\s*{kind.exit_code} ", EXIT_CODES, re.MULTILINE), kind


def test_a_code_has_one_meaning_in_the_help():
    codes = [line.split()[0] for line in EXIT_CODES.splitlines() if line.split()[0] != "otherwise,"]

    assert len(codes) == len(set(codes))
