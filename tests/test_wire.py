"""Messages between agent, command and daemon: what one writes, the other reads, also across versions."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend import wire
from greend.types import Limits

MESSAGES = [
    wire.JobRequest(1, ["python", "train.py"], "naïve", 3e4, 500),
    wire.JobRequest(1, ["true"]),
    wire.JobRequest(1, ["true"], limits=Limits(power_w=40.0, hard=True)),
    wire.LimitsRequest(Limits(3e4, 20.0, 0.1, 40.0, 5.0, True, 1_780_000_000_000_000_000, "pause", "mixed")),
    wire.HoldRequest(1, "a demonstration", 60.0, "ana"),
    wire.HoldReply("h-1"),
    wire.HoldNow("h-1", "j-1", 0, "quiet", "ana", 1000, 42, 7, None),
    wire.PeriodRequest("day", energy_j=7.2e6),
    wire.PeriodNow("month", None, 9e3, None, 1.0, 2.0, None, 0, 1),
    wire.RuleRequest("night", {"mode": "advise", "power": "40 W"}),
    wire.RuleRequest("night"),
    wire.RuleNow("night", {"mode": "act"}, "settings"),
    wire.JobReply("j-4f2a9c"),
    wire.AttachRequest(2, [0.25, 0.5, 1.0], None, ["proven: up -> down"]),
    wire.Progress(7, 2, 123_456_789_012_345_678),
    wire.EndRequest(137, 0.25),
    wire.Directive(3, 1, "113 J for 1444 steps left", 30.0, "hold"),
    wire.Directive(4, 0, "", 30.0, "safe", 1, 0.5, 40.0, 20.0, "pause", 900, [None, 0.25]),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_is_read_as_it_was_written_by_the_standard_library_and_by_the_daemon(message):
    raw = wire.encode(message)

    assert b"\n" not in raw
    assert wire.decode(raw, type(message)) == message
    assert msgspec.json.decode(raw, type=type(message)) == message


@given(st.builds(wire.Progress, st.integers(0), st.integers(0, 7), st.integers(0, 2**63 - 1)))
def test_whole_numbers_stay_whole(progress):
    assert wire.decode(wire.encode(progress), wire.Progress) == progress


@given(st.builds(wire.JobRequest, st.integers(1), st.lists(st.text(), min_size=1), st.none() | st.text()))
def test_any_words_of_a_command_line_arrive(request_):
    assert wire.decode(wire.encode(request_).decode(), wire.JobRequest) == request_


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_field_of_a_newer_version_is_passed_over_by_both_sides(message):
    raw = json.dumps({**dataclasses.asdict(message), "of_tomorrow": [1, 2]})

    assert wire.decode(raw, type(message)) == message
    assert msgspec.json.decode(raw, type=type(message)) == message


def test_fields_that_came_later_have_a_default_for_an_older_writer():
    assert wire.decode('{"seq": 1, "level": 2, "reason": "", "ttl_s": 3.0}', wire.Directive).on_loss == "top"
    assert wire.decode('{"exit_code": 0}', wire.EndRequest).cpu_s is None
    assert wire.decode('{"pid": 1, "command": [], "budget_j": 3.0}', wire.JobRequest).limits == Limits()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("", "Expecting value"),
        ("nonsense", "Expecting value"),
        (b"\xff\xfe\xff", "codec can't decode"),
        ("[1, 2]", "a JSON object was expected, not list"),
        ("null", "a JSON object was expected, not NoneType"),
        ("{}", "Directive: .*missing"),
        ('{"seq": 1, "level": 2}', "Directive: .*'reason' and 'ttl_s'"),
    ],
)
def test_what_is_no_message_is_a_value_error_that_says_why(raw, words):
    with pytest.raises(ValueError, match=words):
        wire.decode(raw, wire.Directive)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for variable in (wire.ENV_SOCKET, "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(wire, "SYSTEM_SOCKET", tmp_path / "system.sock")
    return monkeypatch


def test_the_socket_lies_in_a_folder_of_the_users_own_and_never_in_tmp(bare, tmp_path):
    assert wire.user_socket() == tmp_path / ".local/state/greend/greend.sock"
    bare.setenv("XDG_STATE_HOME", "/mine/state")
    assert wire.user_socket() == Path("/mine/state/greend/greend.sock")
    bare.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert wire.user_socket() == Path("/run/user/7/greend/greend.sock")


def test_the_daemon_is_looked_for_where_one_said_then_at_home_then_in_the_system(bare, tmp_path):
    own = wire.user_socket()
    assert wire.default_socket() == own  # nobody is anywhere: the message names the user's own

    wire.SYSTEM_SOCKET.touch()
    assert wire.default_socket() == wire.SYSTEM_SOCKET

    own.parent.mkdir(parents=True)
    own.touch()
    assert wire.default_socket() == own

    bare.setenv(wire.ENV_SOCKET, "/named.sock")
    assert wire.default_socket() == Path("/named.sock")


def test_the_agent_carries_only_the_standard_library_into_the_users_process():
    code = (
        "import sys; import greend.wire, greend.client\n"
        "third = {m.split('.')[0] for m in sys.modules} - set(sys.stdlib_module_names)\n"
        "print(sorted(m for m in third if m not in before))"
    )
    words = "import sys; before = {m.split('.')[0] for m in sys.modules}\n" + code
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "['greend']"
