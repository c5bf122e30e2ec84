"""What a person sees on a terminal of 80 and of 120 columns, from a history with much in it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from greend.clock import NS, ManualClock
from greend.store.engine import Store
from greend.store.writes import Batch, write
from greend.types import IDLE, Bound, Component, Consumer, Decision, Job, Limits, Meter, Quality, Rank, Share

START = ManualClock().now().wall_ns
NAME = "a name that somebody typed in by hand and that is far too long for any table"
LIMITS = Limits(1e4, 1500.0, 0.25, 1240.0, 10.0, False, START + 3600 * NS)
REASON = (
    "112 J for 1165 steps left is 96.3 mJ each, the last 450 at the top; level 1 costs 61.7 mJ a step, "
    "level 2 88.6 mJ, and the cost of level 3 is older than a minute, so that it is measured anew before "
    "anything else is decided about this job, which has happened twice within its budget of 153 J"
)
CPU = Meter("rapl", "RAPL package", Quality.MEASURED, 0.05, "default@1")
GPU = Meter("nvml", "NVML energy counter", Quality.MEASURED, 0.05, "default@1")
DISK = Meter("disk", "bytes × nJ per byte", Quality.ASSUMED, 2.0, "default@1")
COMMANDS = [
    ("status",), ("jobs",), ("jobs", "j-aaaaaa"), ("why", "j-aaaaaa"), ("jobs", "j-bbbbbb"),
    ("why", "j-bbbbbb", "--at", "60"), ("history", "--by", "job"),
    ("history", "--by", "consumer"), ("history", "--by", "component"), ("history", "--by", "minute"),
]  # fmt: skip


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sockets, eight GPUs and a disk over three minutes, and a job with a very long name."""
    path = tmp_path_factory.mktemp("wide") / "history.db"
    parts = [(Component("cpu", f"package-{i}"), CPU, 97.3) for i in range(2)]
    parts += [(Component("gpu", f"gpu-{i}"), GPU, 201.4) for i in range(8)]
    parts += [(Component("disk", "disk"), DISK, 0.0123)]
    shares = [
        (START + second * NS, START + (second + 1) * NS, Share(component, consumer, energy_j / 2, meter))
        for second in range(0, 180, 20)
        for component, meter, energy_j in parts
        for consumer in (IDLE, Consumer("job", "j-aaaaaa"))
    ]
    job = Job(
        "j-aaaaaa", NAME, ("python", "t.py"), "s", 0, 1, START, START + 180 * NS, 0, LIMITS, True, 1500, 1500,
        (0.25, 0.5, 0.75, 1.0), 2.0, report=(REASON,),
    )  # fmt: skip
    running = Job("j-bbbbbb", "b", ("b",), "s", 0, 2, START - NS, limits=Limits(1e4), costs=(0.5, 1.0))
    bound = Bound("energy budget", Rank.BUDGET, 1, REASON)
    capped = Decision(
        1, REASON, START + 20 * NS, 56, 3, inputs={f"step_j_{level}": 0.5 + level for level in range(4)},
        power_w=1240.0, by="energy budget", bounds=(bound, Bound("hold by somebody", Rank.USER, 2, REASON)),
    )  # fmt: skip
    decisions = [
        ("j-aaaaaa", Decision(3, "measuring what a step costs at the top", START, 0)),
        ("j-aaaaaa", Decision(1, REASON, START + 20 * NS, 56, 3)),
        ("j-bbbbbb", capped),
    ]
    with Store.open(path) as store, store.write() as connection:
        write(connection, Batch(shares=shares, decisions=decisions, jobs={j.id: j for j in (job, running)}))
    return path


def on_terminal(columns: int, *words: str) -> list[str]:
    """The lines that the command writes to a terminal so wide, without its colours."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "greend", *words]
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=environment) as process:
        os.close(theirs)
        raw = b""
        try:
            while part := os.read(ours, 65536):
                raw += part
        except OSError:  # so ends a terminal that nobody writes to any more
            pass
        assert process.wait(timeout=20) == 0, process.stderr.read()
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;]*m", "", raw.decode()).split("\r\n")


def arguments(words: tuple[str, ...], database: Path) -> tuple[str, ...]:
    since = ("--since", f"@{START // NS - 60}", "--until", f"@{START // NS + 240}")
    return (*words, "--db", str(database), *(since if words[0] == "history" else ()))


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_nothing_is_cut_and_no_line_is_wider_than_the_terminal(home, database, words, columns):
    lines = on_terminal(columns, *arguments(words, database))

    assert "…" not in "".join(lines)
    assert [line for line in lines if len(line) > columns] == []
    assert len(lines) > 2


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_in_a_pipe_a_row_is_a_line(greend, database, words):
    piped = greend(*arguments(words, database)).out

    assert "…" not in piped
    assert "\x1b" not in piped
    if words[-1] == "j-aaaaaa":
        assert piped.count(REASON) == 1
    if words == ("jobs",) or words[-1] in ("job", "consumer"):
        assert piped.count(NAME) == 1


def test_a_reason_wraps_under_itself_on_a_terminal(home, database):
    first, second, *rest = on_terminal(80, "why", "j-aaaaaa", "--db", str(database))

    column = second.index("112 J")
    assert first[column:].startswith("measuring")
    assert all(line[:column].strip() == "" for line in rest)
    assert " ".join(line[column:].strip() for line in [second, *rest]).strip() == REASON


def test_figures_of_a_column_have_their_decimals_in_line(greend, database):
    out = greend(*arguments(("history", "--by", "minute"), database)).out
    figures = [line.split()[2:6] for line in out.splitlines() if re.match(r" \d\d-\d\d ", line)]

    assert len(figures) == 4
    assert {len(f.lstrip("~").partition(".")[2]) for row in figures for f in row} == {0}
    assert "cpu  disk" in out
    assert "~0 " not in out
