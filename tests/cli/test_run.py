"""`run` stays out of the way: signals, streams and exit codes are the command's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from .test_bad_input import one_line

RUN = [sys.executable, "-m", "greend", "run"]

WAITS = """
import signal, sys
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, lambda n, _: sys.exit(n))
print("up", flush=True)
while True:
    signal.pause()
"""


def last_job(greend) -> dict:
    return json.loads(greend("jobs", "--json", "-n", "1").out)["jobs"][0]


def test_the_commands_streams_are_its_own_in_and_out(shared):
    code = "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.stderr.write('own words')"
    done = subprocess.run([*RUN, "--", sys.executable, "-c", code], input=b"a\0b", capture_output=True)

    assert done.stdout == b"A\0B"
    assert done.stderr.startswith(b"own words")
    assert b"greend" in done.stderr


def test_words_after_the_command_are_the_commands_also_when_they_look_like_ours(greend, shared):
    code = "import sys; print(sys.argv[1:])"
    result = greend("run", sys.executable, "-c", code, "--budget", "--json", "--", "--name")

    assert result.out == "['--budget', '--json', '--', '--name']\n"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_a_signal_is_passed_on_and_the_commands_answer_is_the_exit_code(home, name):
    words = [*RUN, "--", sys.executable, "-c", WAITS]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(getattr(signal, name))
        assert process.wait(timeout=20) == getattr(signal, name)


def test_ctrl_c_ends_the_command_and_run_outlives_it_to_write_the_job_down(greend, shared):
    words = [*RUN, "--name", "stopped", "--", "sh", "-c", "echo up; exec sleep 60"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout.readline() == "up\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert "stopped   exit 130" in process.stderr.read()
    assert (last_job(greend)["name"], last_job(greend)["exit_code"]) == ("stopped", 130)


def test_a_script_without_its_first_line_cannot_be_executed(greend, shared, home):
    script = home / "script"
    script.write_text("echo hello\n")
    script.chmod(0o755)

    result = greend("run", "--", str(script))

    assert (result.code, result.out) == (126, "")
    assert f"greend: run {script}: Exec format error" in result.err


@pytest.mark.parametrize(("word", "code"), [("/tmp", 126), ("./nowhere/x", 127)])
def test_what_is_no_program_is_said_before_anything_is_registered(greend, shared, word, code):
    result = greend("run", "--budget", "1J", "--name", f"never {word}", "--", word)

    assert result.code == code
    assert word in one_line(result.err)
    assert f"never {word}" not in greend("jobs", "-n", "1000").out


def test_a_job_that_names_nothing_is_called_after_its_script(greend, shared, home):
    script = home / "train.py"
    script.write_text("print('trained')")

    assert greend("run", "--steps", "7", "--", sys.executable, str(script)).out == "trained\n"

    job = last_job(greend)
    assert job["name"] == "train.py"
    assert job["command"] == [sys.executable, str(script)]
    assert (job["steps_total"], job["budget_j"], job["tail_j"]) == (7, None, None)


def test_a_daemon_that_dies_meanwhile_costs_the_command_nothing(greend, daemon):
    code = f"import os, signal, sys; os.kill({daemon.pid}, signal.SIGKILL); print('done'); sys.exit(5)"

    result = greend("run", "--no-agent", "--", sys.executable, "-c", code)

    assert (result.code, result.out) == (5, "done\n")
    assert "could not be told to the daemon" in one_line(result.err)


def test_run_leaves_no_child_behind_when_it_may_not_start_it(greend):
    before = psutil.Process().children()

    greend("run", "--budget", "1J", "--", "true")

    assert psutil.Process().children() == before


@pytest.mark.parametrize("name", ["a[/b]", "[bold]b", "two\nlines", "\x1b[2J"])
def test_a_name_with_anything_in_it_breaks_no_table(greend, shared, name):
    greend("run", "--name", name, "--", "true")

    assert last_job(greend)["name"] == name
    for words in (("jobs",), ("jobs", name), ("history", "--by", "job")):
        result = greend(*words)
        assert (result.code, result.err) == (0, "")
        assert name.replace("\n", "�").replace("\x1b", "�") in result.out


@pytest.mark.parametrize("words", [["help", "exit-codes"], ["--help"], ["jobs"], ["status"]], ids=" ".join)
def test_whoever_reads_no_further_gets_no_traceback(shared, words):
    closed, ours = os.pipe()
    os.close(closed)
    command = [sys.executable, "-m", "greend", *words]
    done = subprocess.run(command, stdout=ours, stderr=subprocess.PIPE, text=True)
    os.close(ours)

    assert done.stderr == ""
    assert done.returncode in (0, 1)


def test_a_running_job_is_seen_by_status_and_jobs_and_is_not_over(greend, shared):
    words = [*RUN, "--name", "long", "--budget", "1MJ", "--", "sleep", "60"]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            while "long" not in (status := greend("status").out):
                assert time.monotonic() < deadline
            assert "278 Wh" in status
            assert "running" in greend("jobs").out
            assert "running" in greend("jobs", "long").out
            job = last_job(greend)
            assert (job["ended"], job["exit_code"]) == (None, None)
        finally:
            process.terminate()
        assert process.wait(timeout=20) == 128 + signal.SIGTERM


def test_the_agent_is_found_where_greend_is_installed_and_one_level_needs_none(greend, shared):
    code = "import os; print(os.environ['PYTHONPATH'])"
    shim = greend("run", "--", sys.executable, "-c", code).out.strip()

    assert (Path(shim) / "sitecustomize.py").is_file()
    assert greend("run", "--levels", "1", "--", "sh", "-c", "echo $PYTHONPATH").out == "\n"
