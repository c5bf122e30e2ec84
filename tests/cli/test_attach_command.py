"""`greend attach PID`: what it says of processes that it cannot attach."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def running(*words: str, **environment: str) -> Iterator[int]:
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **environment}
    ) as process:
        try:
            process.stdout.readline()
            yield process.pid
        finally:
            process.stdin.close()


WAITS = "import sys; print('up', flush=True); sys.stdin.read()"


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="this Python can be attached")
def test_a_process_of_this_python_is_told_from_one_that_can_be_attached(greend):
    with running(sys.executable, "-c", WAITS) as pid:
        result = greend("attach", str(pid))

    assert result.code == 5
    assert result.err.startswith(f"greend: attach to process {pid}: it runs Python {sys.version_info[0]}.")
    assert f"greend run -- {sys.executable} -c " in result.err
    assert result.err.count("\n") == 1


def test_a_process_that_is_no_python_is_refused(greend):
    with running("sh", "-c", "echo up; cat") as pid:
        result = greend("attach", str(pid))

    assert (result.code, result.out) == (5, "")
    assert "it is not a Python process" in result.err


def test_a_number_that_no_process_has_is_a_usage_error(greend):
    result = greend("attach", str(2**22 + 1))

    assert result.code == 2
    assert "there is none of that number" in result.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look at every process")
def test_somebody_elses_process_is_refused_with_what_to_do(greend):
    result = greend("attach", "1")

    assert result.code == 4
    assert "run `greend attach` as that user, or as root" in result.err


def test_levels_and_knobs_of_run_reach_the_command_as_they_were_given(greend, shared):
    show = "import os; print(os.environ['GREEND_LEVELS'], os.environ.get('GREEND_KNOBS'))"

    chosen = greend("run", "--levels", "0.5,1", "--knobs", "ffn,depth", "--", sys.executable, "-c", show)
    assert chosen.out == "0.5,1 ffn,depth\n"
    assert greend("run", "--", sys.executable, "-c", show).out == "4 None\n"
    assert greend("run", "--knobs", "fnf", "--", sys.executable, "-c", show).code == 2


def test_levels_that_there_cannot_be_are_refused_before_anything_is_done(greend):
    result = greend("attach", str(os.getpid()), "--levels", "none")

    assert result.code == 2
    assert "--levels" in result.err
