"""What the commands print, for people and as JSON, with a daemon and without."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from greend.cli.daemon import _Journal

from .conftest import Result, stop

BUSY = (
    "import sys, time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\nprint('done')"
)


def run_job(greend, name: str = "burn", *options: str):
    return greend("run", "--name", name, *options, "--", sys.executable, "-c", BUSY)


def as_json(result) -> dict:
    assert result.code == 0, result.err
    data = json.loads(result.out)
    assert data["schema_version"] == 1
    return data


def test_a_job_is_run_measured_and_summed_up(greend, daemon):
    result = run_job(greend)

    assert (result.code, result.out) == (0, "done\n")
    assert "burn   exit 0" in result.err
    [job] = as_json(greend("jobs", "--json"))["jobs"]
    assert (job["name"], job["exit_code"]) == ("burn", 0)
    assert job["energy_j"] > 1.0
    assert job["ended"].endswith("Z")


def test_the_last_line_of_run_is_the_job_when_it_is_asked_for(greend, shared):
    result = run_job(greend, "burn", "--json")

    first, last = result.out.splitlines()
    assert first == "done"
    assert json.loads(last)["job"]["name"] == "burn"
    assert result.err == ""


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("raise SystemExit(3)", 3),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("pass", 0),
    ],
)
def test_the_exit_code_is_the_commands_own(greend, shared, code, exit_code):
    assert greend("run", "--", sys.executable, "-c", code).code == exit_code


def test_a_signal_to_run_reaches_the_command(shared):
    code = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))
print("up", flush=True)
time.sleep(60)
"""
    words = [sys.executable, "-m", "greend", "run", "--", sys.executable, "-c", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 42


SHOW = (
    "import os; print(os.environ.get('PYTHONPATH'), os.environ['GREEND_JOB_ID'], os.environ['GREEND_LEVELS'])"
)


def test_the_agents_shim_comes_first_on_the_commands_path(greend, shared, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/mine")
    path, job, levels = greend("run", "--levels", "3", "--", sys.executable, "-c", SHOW).out.split()

    assert path.endswith("/greend_agent/shim:/mine")
    assert job.startswith("j-")
    assert levels == "3"


def test_without_an_agent_the_path_is_left_alone(greend, shared):
    assert greend("run", "--no-agent", "--", sys.executable, "-c", SHOW).out.startswith("None j-")


def test_status_says_now_today_and_how_each_figure_is_known(greend, shared):
    result = greend("status")

    assert result.code == 0
    for words in ("now", "today", "month", "simulated package", "assumed", "±", "no job runs"):
        assert words in result.out
    assert greend().out.split()[0] == "greend"


def test_status_as_json_is_in_si_units(greend, shared):
    data = as_json(greend("status", "--json"))

    assert data["running"] is True
    assert data["daemon"]["power_w"] > 10
    assert {c["kind"] for c in data["daemon"]["components"]} >= {"cpu", "dram"}
    assert set(data["today"]) == {"energy_j", "relative_error", "quality"}


def test_status_without_a_daemon_is_what_the_history_says(greend, daemon):
    stop(daemon)

    result = greend("status")

    assert result.code == 3
    assert "today" in result.out
    assert "the daemon is not running" in result.err


BY = ("minute", "hour", "day", "month", "component", "job", "consumer")


def test_history_answers_by_everything_with_and_without_a_daemon(greend, daemon):
    run_job(greend)
    live = {by: as_json(greend("history", "--by", by, "--json")) for by in BY}
    stop(daemon)
    left = {by: as_json(greend("history", "--by", by, "--json")) for by in BY}

    for by in BY:
        assert live[by]["by"] == left[by]["by"] == by
        total_j = sum(row["energy_j"] or 0 for row in left[by]["rows"])
        assert total_j >= sum(row["energy_j"] or 0 for row in live[by]["rows"]) > 1.0
        people = greend("history", "--by", by)
        assert people.code == 0
        assert "sum" in people.out


def test_history_of_a_copied_file_needs_no_daemon(greend, daemon, home):
    run_job(greend)
    stop(daemon)
    shutil.copy(home / "state" / "greend" / "greend.db", home / "copy.db")
    shutil.rmtree(home / "state")

    rows = as_json(greend("history", "--by", "job", "--db", str(home / "copy.db"), "--json"))["rows"]

    assert [row["name"] for row in rows] == ["burn"]
    assert rows[0]["job"].startswith("j-")


def test_history_in_a_unit_of_ones_own(greend, shared):
    assert "mWh" in greend("history", "--by", "hour", "--unit", "mWh").out


def test_nothing_recorded_is_said(greend, daemon):
    assert (
        "nothing was recorded"
        in greend("history", "--by", "day", "--since", "2001-01-01", "--until", "2001-01-02").out
    )
    assert "no job yet" in greend("jobs").out


def test_one_job_in_detail_by_name_or_by_a_beginning_of_its_id(greend, daemon):
    run_job(greend, "first")
    run_job(greend, "second", "--budget", "1MJ")
    job = as_json(greend("jobs", "second", "--json"))["job"]

    assert "second" in greend("jobs", job["id"][:5]).out
    assert "met" in greend("jobs", "second").out
    assert [j["name"] for j in as_json(greend("jobs", "--json", "-n", "1"))["jobs"]] == ["second"]


def test_why_says_when_there_was_nothing_to_turn(greend, daemon):
    run_job(greend)

    assert "no agent is attached" in greend("why", "burn").out
    assert as_json(greend("why", "burn", "--json"))["decisions"] == []


def test_doctor_says_what_is_measured_and_what_is_not_and_the_fix(greend, shared):
    result = greend("doctor")

    assert result.code == 0, result.out
    for words in ("daemon", "database", "host", "rapl", "nvml", "cpu", "0 errors"):
        assert words in result.out
    assert as_json(greend("doctor", "--json"))["errors"] == 0


def test_doctor_ends_with_1_when_no_daemon_runs(greend):
    result = greend("doctor")

    assert result.code == 1
    assert "greend daemon" in result.out


@pytest.mark.parametrize("topic", ["exit-codes", "environment"])
def test_help_has_topics(greend, topic):
    assert len(greend("help", topic).out.splitlines()) > 5


def test_the_version_imports_next_to_nothing():
    code = (
        "import sys\nfrom greend.cli import main\n"
        "try: main(['--version'])\nexcept SystemExit: pass\n"
        "print(sorted({'rich', 'sqlalchemy', 'torch', 'starlette', 'msgspec'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_a_daemon_that_is_asked_to_stores_what_it_has(greend, daemon, home):
    os.kill(daemon.pid, signal.SIGHUP)
    deadline = time.monotonic() + 10
    while not as_json(greend("history", "--by", "component", "--json"))["rows"]:
        assert time.monotonic() < deadline

    assert daemon.poll() is None


def test_with_a_daemon_whose_history_is_gone_status_says_now_and_does_not_make_up_the_rest(
    greend, daemon, home
):
    (home / "state" / "greend" / "greend.db").unlink()

    data = as_json(greend("status", "--json"))

    assert data["daemon"]["power_w"] > 10
    assert data["today"] == data["month"] == {"energy_j": None, "relative_error": None, "quality": "missing"}
    assert "?" in greend("status").out


def test_the_environment_names_history_and_socket(greend, shared, monkeypatch):
    path = shared / "state" / "greend" / "greend.db"
    socket_path = shared / "run" / "greend" / "greend.sock"
    for variable in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, "/nowhere")
    assert greend("history").code == 1

    monkeypatch.setenv("GREEND_SOCKET", str(socket_path))
    assert greend("status").code == 0
    monkeypatch.delenv("GREEND_SOCKET")
    monkeypatch.setenv("GREEND_DB", str(path))
    assert greend("history", "--by", "component").code == 0


def test_doctor_on_a_machine_that_can_read_nothing_says_so_and_goes_on(greend, shared, monkeypatch):
    from greend.daemon.sources import HostSource

    monkeypatch.setattr(HostSource, "probe", lambda self: "no /proc")
    result = greend("doctor")

    assert result.code == 1
    assert "no enabled source works on this machine: host: no /proc" in result.out


def test_ctrl_c_while_a_command_works_ends_it_without_a_traceback(greend, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("greend.cli.root.main", interrupted)

    assert greend("status") == Result(130, "", "")


def test_the_journal_gets_a_level_with_each_line():
    record = logging.LogRecord("greend", logging.WARNING, "", 0, "one\ntwo %s", ("three",), None)

    assert _Journal("%(message)s").format(record) == "<4>one\n<4>two three"
