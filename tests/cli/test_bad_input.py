"""What people get wrong: one clear line, the documented exit code, and nothing lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import stop


def one_line(text: str) -> str:
    assert text.count("\n") == 1, text
    assert text.startswith("greend: ")
    return text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("[daemon]\nperiod = 2", "unknown key 'daemon.period' (did you mean 'period_s'?)"),
        ("[demon]\nperiod_s = 2", "unknown key 'demon' (did you mean 'daemon'?)"),
        ("[daemon]\nperiod_s = 'often'", "Expected `float`, got `str`"),
        ("[daemon]\nperiod_s = 0", "daemon.period_s = 0.0: it must be at least 0.05"),
        ("[governor]\njob_budget = '30 kilos'", "unknown unit 'kilos'"),
        ("[governor]\nfinish_share = 2", "a share lies between 0 and 1"),
        ("[daemon]\nsocket_mode = 'rw'", "write it in octal"),
        ("period_s == 2", "not TOML"),
        ("[sources]\nenabled = ['rappl']", "no source is called 'rappl' (did you mean 'rapl'?)"),
        ("[energy]\ntable = '/nowhere.toml'", "read /nowhere.toml"),
        ("[daemon]\nperiod_s = inf", "daemon.period_s = inf"),
        ("[retention]\nseconds_h = -1", "retention.seconds_h = -1.0"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(greend, home, settings, words):
    path = home / "greend.toml"
    path.write_text(settings)

    result = greend("daemon", "--config", str(path))

    assert result.code == 6
    assert words in one_line(result.err)
    assert not (home / "state").exists()


def test_a_machine_on_which_no_enabled_source_works(greend, home):
    path = home / "greend.toml"
    path.write_text("[sources]\nenabled = []")

    result = greend("daemon", "--config", str(path))

    assert result.code == 5
    assert "no enabled source works on this machine" in one_line(result.err)


def test_a_configuration_that_is_not_there(greend):
    result = greend("daemon", "--config", "/nowhere/greend.toml")

    assert result.code == 6
    assert "/nowhere/greend.toml" in one_line(result.err)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ("30kilos", "unknown unit 'kilos'"),
        ("30kw", "unknown unit 'kw' (did you mean 'kWh'?)"),
        ("30", "the unit is missing"),
        ("-3kJ", "it must be more than zero"),
        ("much", "no number in it"),
    ],
)
def test_a_budget_that_makes_no_sense(greend, budget, words):
    result = greend("run", "--budget", budget, "--", "true")

    assert result.code == 2
    assert words in one_line(result.err)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--power", "40"), "the unit is missing; write for example 40W"),
        (("--carbon", "much"), "as an emission: no number in it"),
        (("--cost", "1 EUR"), "write a number alone, as 0.10"),
        (("--deadline", "yesterday"), "as a deadline: that is over"),
        (("--power", "40W", "--window", "10"), "as a duration: the unit is missing"),
        (("--window", "10s"), "--window is about a power: name it with --power"),
        (("--hard",), "--hard is about a power: name it with --power"),
        (("--power", "40W", "--hard", "--window", "10s"), "--hard knows no window"),
        (("--on-infeasible", "cry"), "'cry' is not one of 'run_level_0', 'stop_at_checkpoint', 'pause'"),
        (("--order", "falling"), "'falling' is not one of 'rising', 'mixed'"),
    ],
)
def test_a_limit_that_makes_no_sense_starts_nothing(greend, home, words, problem):
    result = greend("run", *words, "--", "touch", str(home / "started"))

    assert result.code == 2
    assert problem in one_line(result.err)
    assert not (home / "started").exists()


def test_a_command_that_is_not_there(greend):
    result = greend("run", "--", "no-such-program-anywhere")

    assert result.code == 127
    assert "no-such-program-anywhere: command not found" in one_line(result.err)


def test_a_command_that_cannot_be_executed(greend, home):
    script = home / "script.sh"
    script.write_text("echo hello")

    result = greend("run", "--", str(script))

    assert result.code == 126
    assert "cannot be executed" in one_line(result.err)


def test_a_budget_without_a_daemon_starts_nothing(greend, home):
    result = greend("run", "--budget", "30kJ", "--", "touch", str(home / "started"))

    assert result.code == 125
    assert "the command was not started" in one_line(result.err)
    assert not (home / "started").exists()


def test_without_a_daemon_a_command_runs_unmeasured(greend, home):
    result = greend("run", "--", "touch", str(home / "started"))

    assert result.code == 0
    assert "runs unmeasured" in one_line(result.err)
    assert (home / "started").exists()


def test_a_required_daemon_that_is_not_there_starts_nothing(greend, home, monkeypatch):
    monkeypatch.setenv("GREEND_REQUIRED", "1")

    assert greend("run", "--", "touch", str(home / "started")).code == 125
    assert not (home / "started").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["histroy"], "no command is called 'histroy' (did you mean 'history'?)"),
        (["xyz"], "no command is called 'xyz'; there are status, history,"),
        (["--colour"], "No such option"),
        (["run", "--bugdet", "3J", "--", "true"], "No such option '--bugdet'"),
        (["run", "--steps", "0", "--", "true"], "0 is not in the range"),
        (["run", "--levels", "9", "--", "true"], "from 1 to 8 levels"),
        (["jobs", "-n", "0"], "0 is not in the range"),
        (["history", "--since", "99999999999d"], "read '99999999999d' as a time"),
        (["history", "--unit", "kw"], "'kw' is not one of"),
        (["why"], "Missing argument"),
        (["history", "--by", "fortnight"], "'fortnight' is not one of"),
        (["history", "--since", "soon"], "read 'soon' as a time"),
        (["history", "--since", "today", "--until", "yesterday"], "does not lie before"),
        (["jobs", "--colour"], "No such option"),
        (["run"], "Missing argument"),
        (["help", "me"], "'me' is not one of"),
    ],
)
def test_words_that_are_off(greend, words, message):
    result = greend(*words)

    assert result.code == 2
    assert message in one_line(result.err)


def test_a_file_that_is_not_a_database(greend, home):
    path = home / "thesis.db"
    path.write_bytes(b"chapter one " * 1000)

    result = greend("history", "--db", str(path))

    assert result.code == 7
    assert "thesis.db" in one_line(result.err)
    assert path.read_bytes() == b"chapter one " * 1000


def test_a_database_that_is_not_there(greend):
    result = greend("history", "--db", "/nowhere/greend.db")

    assert result.code == 1
    assert "no history at /nowhere/greend.db" in one_line(result.err)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user from whom to hide a file")
def test_a_database_that_may_not_be_read(tmp_path):
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if str(folder).startswith("/tmp/") and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o011)
    path = tmp_path / "greend.db"
    path.write_bytes(b"")
    path.chmod(0)
    code = (
        "import os, sys; os.setgid(65534); os.setuid(65534)\n"
        f"from greend.cli import main; main(['history', '--db', {str(path)!r}])"
    )

    # The modules are read before the rights are given up.
    load = "import greend.cli.history, greend.store.engine, greend.store.queries, greend.store.jobs\n"
    result = subprocess.run([sys.executable, "-c", load + code], capture_output=True, text=True, cwd="/")

    assert result.returncode == 4, result.stderr
    assert "permission denied" in result.stderr.lower()


def test_a_socket_in_use_is_left_to_its_daemon(greend, daemon, home):
    result = greend("daemon")

    assert result.code == 1
    assert f"another greend daemon (pid {daemon.pid})" in one_line(result.err)
    assert greend("status").code == 0


def test_a_file_in_the_place_of_the_socket_is_not_touched(greend, home):
    path = home / "notes.txt"
    path.write_text("mine")

    result = greend("daemon", "--socket", str(path))

    assert result.code == 1
    assert "not a socket" in one_line(result.err)
    assert path.read_text() == "mine"


def test_an_unknown_job_is_named_with_those_that_come_near(greend, shared):
    greend("run", "--name", "resnet", "--", "true")

    result = greend("why", "resnat")

    assert result.code == 1
    assert "resnet" in one_line(result.err)


def test_a_damaged_database_keeps_the_daemon_from_starting_and_is_not_touched(greend, daemon, home):
    stop(daemon)
    path = home / "state" / "greend" / "greend.db"
    path.write_bytes(b"\0" * 5000)
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)

    result = greend("daemon")

    assert result.code == 7
    assert "greend.db" in one_line(result.err)
    assert path.read_bytes() == b"\0" * 5000
    assert shutil.which("true")
