"""`greend actuator`: what it says when it cannot start."""

from __future__ import annotations

from pathlib import Path

import pytest

from greend.actuator.ledger import Ledger
from greend.cli import main


def ends(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["actuator", *words])
    return int(ended.value.code or 0), capsys.readouterr().err


def test_a_user_that_does_not_exist_is_a_usage_error(tmp_path: Path, capsys):
    code, said = ends(["--state", str(tmp_path / "state"), "--allow", "nobody-here"], capsys)

    assert (code, said) == (2, "greend: allow user 'nobody-here': this machine knows none of that name\n")


def test_a_second_actuator_says_so_before_it_touches_anything(tmp_path: Path, capsys):
    first = Ledger(tmp_path / "state", "boot")
    code, said = ends(["--state", str(tmp_path / "state"), "--socket", str(tmp_path / "a.sock")], capsys)

    assert code == 1
    assert "another actuator uses it" in said
    assert not (tmp_path / "a.sock").exists()
    first.close()
