"""As a system service: what systemd is told by a real daemon, and what its unit promises."""

from __future__ import annotations

import configparser
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "systemd" / "greend.service"


def test_systemd_is_told_ready_after_the_first_figure_and_stopping_at_the_end(tmp_path, monkeypatch):
    (tmp_path / "greend.toml").write_text("[daemon]\nperiod_s = 0.1\n[sources]\nenabled = ['host', 'fake']\n")
    words = ["daemon", "--system", "--config", str(tmp_path / "greend.toml")]
    words += ["--socket", str(tmp_path / "greend.sock"), "--db", str(tmp_path / "greend.db")]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with subprocess.Popen([sys.executable, "-m", "greend", *words], stderr=subprocess.PIPE) as process:
            heard = [manager.recv(1000).decode()]
            while "READY=1" not in heard:
                heard.append(manager.recv(1000).decode())
            mode = stat.S_IMODE((tmp_path / "greend.sock").stat().st_mode)
            process.send_signal(signal.SIGTERM)
            while heard[-1] != "STOPPING=1":
                heard.append(manager.recv(1000).decode())
            assert process.wait(timeout=20) == 0

    before_ready = heard[: heard.index("READY=1")]
    assert before_ready[-1].startswith("WATCHDOG=1\nSTATUS=")
    assert " W, 0 jobs" in before_ready[-1]
    assert mode == 0o660
    assert not (tmp_path / "greend.sock").exists()


def unit() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser


def test_the_unit_runs_the_daemon_as_its_own_user_with_one_capability():
    service = unit()["Service"]

    assert service["Type"] == "notify"
    assert service["ExecStart"].endswith("greend daemon --system")
    assert service["User"] == "greend"
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == "CAP_PERFMON"
    assert service["PrivateNetwork"] == "yes"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not on this machine")
def test_the_units_exposure_is_at_most_one():
    words = ["systemd-analyze", "security", "--offline=true", "--threshold=10", str(UNIT)]
    done = subprocess.run(words, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout[-400:]
