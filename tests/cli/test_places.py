"""Sockets and databases that are not what they should be: said in one line, and left as they are."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from greend.store.engine import Store

from .conftest import SETTINGS, stop
from .test_bad_input import one_line


def database_of(home: Path) -> Path:
    return home / "state" / "greend" / "greend.db"


def test_a_second_daemon_makes_no_database_and_writes_none(greend, daemon, home):
    before = database_of(home).stat().st_ino

    result = greend("daemon", "--db", str(home / "second" / "greend.db"))

    assert (result.code, result.out) == (1, "")
    assert f"(pid {daemon.pid})" in one_line(result.err)
    assert "choose another socket with --socket" in result.err
    assert not (home / "second").exists()
    assert database_of(home).stat().st_ino == before
    stop(daemon)
    with sqlite3.connect(database_of(home)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_socket_that_a_killed_daemon_left_behind_is_replaced(greend, daemon, home):
    daemon.kill()
    daemon.wait(timeout=20)
    path = home / "run" / "greend" / "greend.sock"
    assert path.is_socket()
    # A folder where the database should be ends the new daemon after it has taken the socket.
    result = greend("daemon", "--db", str(home))

    assert "another greend daemon" not in one_line(result.err)
    assert not path.exists()


@pytest.mark.parametrize("command", ["status", "jobs", "history"])
def test_without_a_daemon_and_without_a_history_the_way_to_start_one_is_said(greend, command):
    result = greend(command)

    assert result.code == (3 if command == "status" else 1)
    assert result.out == ""
    assert "greend daemon" in one_line(result.err)


def test_a_socket_whose_path_is_too_long_is_said(greend, home):
    result = greend("daemon", "--socket", str(home / ("x" * 120)))

    assert result.code == 1
    assert "too long" in one_line(result.err)


@pytest.mark.parametrize("command", [("status",), ("history",), ("jobs",), ("why", "x")])
def test_a_folder_is_not_a_history(greend, home, command):
    result = greend(*command, "--db", str(home))

    assert result.code == 1
    assert "this is a folder" in one_line(result.err)


@pytest.mark.parametrize("command", [("status",), ("jobs",), ("why", "x")])
def test_every_command_says_of_a_file_that_it_is_not_a_database(greend, home, command):
    path = home / "thesis.db"
    path.write_text("chapter one " * 1000)

    result = greend(*command, "--db", str(path))

    assert result.code == 7
    assert "thesis.db: this is not an SQLite database" in one_line(result.err)
    assert [p.name for p in home.iterdir()] == ["thesis.db"]


def test_a_database_of_a_newer_greend_is_read_by_nobody_and_left_alone(greend, home):
    path = home / "greend.db"
    Store.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    before = path.read_bytes()

    for words in (("history", "--db", str(path)), ("daemon", "--db", str(path))):
        result = greend(*words)
        assert result.code == 7
        assert "newer" in one_line(result.err)
    assert path.read_bytes() == before


def test_a_database_is_not_made_inside_a_file(greend, home):
    (home / "file").write_text("mine")

    result = greend("daemon", "--db", str(home / "file" / "greend.db"))

    assert result.code == 1
    assert "greend.db" in one_line(result.err)
    assert (home / "file").read_text() == "mine"


def test_doctor_names_a_damaged_database_and_goes_on(greend, home):
    (home / "greend.db").write_bytes(b"\0" * 5000)

    result = greend("doctor", "--db", str(home / "greend.db"))

    assert result.code == 1
    assert "[fail]" in result.out
    assert "host" in result.out
    assert result.err == ""


def test_a_daemon_that_does_not_answer_is_a_daemon_that_does_not_run(greend, home):
    folder = home / "run" / "greend"
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(folder / "greend.sock"))  # bound, and nobody listens

        assert greend("status").code == 3
        assert greend("run", "--budget", "1J", "--", "true").code == 125


def test_options_name_socket_and_database_for_the_daemon_and_for_whoever_asks(greend, home):
    path = home / "other.toml"
    path.write_text(SETTINGS)
    places = ["--socket", str(home / "s.sock"), "--db", str(home / "deep" / "h.db")]
    words = [sys.executable, "-m", "greend", "daemon", "--config", str(path), *places]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stderr.readline()
            assert str(home / "deep" / "h.db") in line
            assert greend("status", "--socket", str(home / "s.sock")).code == 0
            assert (home / "s.sock").stat().st_mode & 0o777 == 0o600
            assert (home / "deep" / "h.db").stat().st_mode & 0o777 == 0o600
        finally:
            process.terminate()
        assert process.wait(timeout=20) == 0
    assert not (home / "s.sock").exists()
    assert greend("status").code == 3
    assert greend("history", "--db", str(home / "deep" / "h.db")).code == 0
