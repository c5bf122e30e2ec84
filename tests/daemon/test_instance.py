"""Of two daemons on one database one is refused, in words."""

import os
import subprocess
import sys

import pytest

from greend.client import Client
from greend.daemon.instance import Instance
from greend.daemon.main import Daemon
from greend.errors import StoreError

from .conftest import settings

HOLD = """
import sys
from pathlib import Path
from greend.daemon.instance import Instance
Instance(Path(sys.argv[1]))
print("held", flush=True)
input()
"""


def test_a_second_daemon_on_the_same_database_is_refused_and_the_first_goes_on(daemon, tmp_path, clock):
    other = settings(tmp_path, more={"daemon": {"socket": str(tmp_path / "other.sock"),
                                                "database": str(daemon.database)}})  # fmt: skip
    with pytest.raises(StoreError, match=rf"another greend daemon \(pid {os.getpid()}\) writes to it"):
        Daemon(other, clock=clock)

    assert not (tmp_path / "other.sock").exists()
    assert Client(daemon.socket_path).get("/status")["pid"] == os.getpid()


def test_what_a_killed_daemon_held_is_free(tmp_path):
    database = tmp_path / "greend.db"
    words = [sys.executable, "-c", HOLD, str(database)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=f"pid {process.pid}"):
            Instance(database)
        process.kill()
        process.wait()

    Instance(database).give_back()
    Instance(database).give_back()
