"""`why` and `jobs JOB` over a history with decisions in it."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from greend.clock import NS, ManualClock
from greend.store.engine import Store
from greend.store.writes import Batch, write
from greend.types import (
    Action,
    Bound,
    Component,
    Consumer,
    Decision,
    Job,
    Limits,
    Meter,
    Quality,
    Rank,
    Share,
)

START = ManualClock().now().wall_ns
METER = Meter("cpu-time", "CPU time × W per thread", Quality.MODELLED, 0.45, "default@1")
WHY = "113 J for 1444 steps left is 78.3 mJ each; level 1 costs 59.4 mJ a step, level 2 89.9 mJ"


BOUND = {
    "inputs": {
        "left_j": 113.0,
        "steps_left": 1444.0,
        "taken_s": 90.0,
        "step_j_0": 0.04,
        "step_j_1": 0.0594,
        "step_sd_0": 0.25,
        "step_sd_1": 0.01,
    },
    "power_w": 40.0,
    "by": "energy budget",
    "bounds": (
        Bound("energy budget", Rank.BUDGET, 1, WHY),
        Bound("power cap", Rank.CAP, 3, "40.0 W over any 10 s", power_w=40.0),
        Bound("deadline", Rank.BUDGET, 2, "by 18:00", feasible=False, action=Action.PAUSE),
        Bound("night", Rank.CARBON, 0, "only by day", pace=0.5, advised=True),
        Bound("hold by ana", Rank.USER, 3, "keep it up", floor=1),
    ),
}


@pytest.fixture
def history(home: Path) -> str:
    """A job that used 90 of 100 J in two changes of level, and one that missed its budget."""
    costs = (0.25, 0.5, 0.75, 1.0)
    command = ("python", "train.py")
    held = Job(
        "j-aaaaaa", "held", command, "s", 0, 1, START, START + 60 * NS, 0, Limits(100.0), True, 1500, 1500,
        costs, 2.0, report=("proven: up -> down, 1024 wide",),
    )  # fmt: skip
    missed = Job(
        "j-bbbbbb", "missed", command, "s", 0, 2, START, START + 60 * NS, 1, Limits(50.0), True, 1500, 900
    )
    share = [
        (START, START + NS, Share(Component("cpu", "cpu"), Consumer("job", job), energy_j, METER))
        for job, energy_j in (("j-aaaaaa", 90.0), ("j-bbbbbb", 75.0))
    ]
    decisions = [
        ("j-aaaaaa", Decision(3, "measuring what a step costs at the top", START, 0)),
        ("j-aaaaaa", Decision(1, WHY, START + 2 * NS, 56, 3, **BOUND)),
        ("j-aaaaaa", Decision(3, "finish: 60 J for 450 steps left", START + 40 * NS, 1050, 1)),
    ]
    path = home / "history.db"
    with Store.open(path) as store, store.write() as connection:
        write(connection, Batch(shares=share, decisions=decisions, jobs={j.id: j for j in (held, missed)}))
    return str(path)


def test_why_gives_each_change_with_its_reason_on_one_line_when_piped(greend, history):
    lines = greend("why", "held", "--db", history).out.splitlines()

    assert len(lines) == 3
    assert "step 56" in lines[1]
    assert "level 3 → 1" in lines[1]
    assert WHY in lines[1]


def test_why_as_json_keeps_the_figures(greend, history):
    decisions = json.loads(greend("why", "held", "--db", history, "--json").out)["decisions"]

    assert [(d["level"], d["previous"]) for d in decisions] == [(3, None), (1, 3), (3, 1)]
    assert decisions[1]["reason"] == WHY


AT_STEP_56 = f"""\
   step 56   level 1 of 3   [at most 40.0 W]
 why    energy budget binds
 known  left 113 J   steps left 1444   taken 1m 30s   step at level 0 to 1: 40.0 mJ ±49 %, 59.4 mJ ±2 %
    constraint      level  pace   power  says
 →  energy budget     ≤ 1     -       -  {WHY}
 →  power cap         ≤ 3     -  40.0 W  40.0 W over any 10 s
    deadline          ≤ 2     -       -  pause: by 18:00
    night             ≤ 0  50 %       -  only advised: only by day
    hold by ana    1 to 3     -       -  keep it up
"""


def bare(text: str) -> list[str]:
    """The lines that say something, without rules and what a terminal does not show."""
    return [line.rstrip() for line in text.splitlines() if line.strip("─ ")]


@pytest.mark.parametrize("at", ["56", "57", "1049"])
def test_why_at_a_step_shows_what_every_constraint_allowed_and_which_one_bound(greend, history, at):
    lines = bare(greend("why", "held", "--at", at, "--db", history).out)

    shown = [lines[0].partition("   ")[2].strip(), *lines[1:]]
    expected = bare(AT_STEP_56)
    assert shown == [expected[0].strip(), *expected[1:]]


@pytest.mark.parametrize(("ago_s", "level"), [(60, 3), (58, 1), (21, 1), (20, 3), (0, 3)])
def test_why_at_a_time_is_what_was_in_force_then(greend, history, ago_s, level):
    at = f"@{START // NS + 60 - ago_s}"

    [decision] = json.loads(greend("why", "held", "--at", at, "--db", history, "--json").out)["decisions"]

    assert decision["level"] == level


def test_the_hour_of_why_is_that_of_the_day_on_which_the_job_ran(greend, history):
    at = datetime.fromtimestamp(START / NS + 30).astimezone().strftime("%H:%M:%S")

    [decision] = json.loads(greend("why", "held", "--at", at, "--db", history, "--json").out)["decisions"]

    assert decision["at_step"] == 56


def test_before_the_first_decision_why_names_it(greend, history):
    result = greend("why", "held", "--at", f"@{START // NS - 1}", "--db", history)

    assert result.code == 1
    assert "nothing was decided by then; the first decision was made at step 0" in result.err


def test_why_with_bounds_shows_them_for_every_change(greend, history):
    out = greend("why", "held", "--bounds", "--db", history).out

    assert out.count(" why ") == 3
    assert out.count("→  energy budget") == 1


def test_a_job_in_detail_shows_budget_work_levels_and_the_model(greend, history):
    out = greend("jobs", "held", "--db", history).out

    for words in (
        "90.0 % used   met", "1500 of 1500 steps", "2 changes among 4", "┓", "┏", "proven: up -> down",
    ):  # fmt: skip
        assert words in out


def test_a_budget_that_was_missed_is_said_with_by_how_much(greend, history):
    assert "150.0 % used   missed by 25.0 J" in greend("jobs", "missed", "--db", history).out


def test_the_list_of_jobs_has_a_line_each(greend, history):
    out = greend("jobs", "--db", history).out

    assert [line.split()[1] for line in out.splitlines() if line.strip().startswith("j-")] == [
        "missed",
        "held",
    ]
    assert "150 %" in out


def test_a_gap_in_the_record_is_null_and_a_question_mark_and_never_0(greend, home):
    share = Share(Component("cpu", "cpu"), Consumer("other"), 5.0, METER)
    later = START + 300 * NS
    path = home / "gap.db"
    with Store.open(path) as store, store.write() as connection:
        write(connection, Batch(shares=[(at, at + NS, share) for at in (START, later)]))
    since = (
        "--db",
        str(path),
        "--by",
        "minute",
        "--since",
        f"@{START // NS}",
        "--until",
        f"@{later // NS + 1}",
    )

    data = json.loads(greend("history", *since, "--json").out)

    assert [row["energy_j"] for row in data["rows"]] == [5.0, None, None, None, None, 5.0]
    gap = data["rows"][1]
    assert (gap["quality"], gap["relative_error"], gap["coverage"]) == ("missing", None, 0.0)
    assert gap["components"] == {}
    rows = [line.split() for line in greend("history", *since).out.splitlines() if " ? " in line]
    assert [row[2:5] for row in rows] == [["?", "?", "?"]] * 4


def test_a_job_without_a_budget_an_end_or_a_figure_has_null_for_each(greend, home):
    job = Job("j-cccccc", "new", ("true",), "s", 0, 1, START)
    path = home / "new.db"
    with Store.open(path) as store, store.write() as connection:
        write(connection, Batch(jobs={job.id: job}))

    found = json.loads(greend("jobs", "new", "--db", str(path), "--json").out)["job"]

    for key in ("ended", "exit_code", "energy_j", "relative_error", "budget_j", "steps_total", "tail_j"):
        assert found[key] is None
    out = greend("jobs", "new", "--db", str(path)).out
    assert "running" in out
    assert "energy   ?" in out
    assert "~?" not in out


@pytest.mark.parametrize("since", ["1970-01-01", "0001-01-01"])
def test_a_very_long_time_is_asked_for_only_where_something_was_recorded(greend, history, since):
    rows = json.loads(
        greend(
            "history", "--by", "minute", "--since", since, "--until", "9998-12-31", "--db", history, "--json"
        ).out
    )["rows"]

    assert len(rows) == 1
    assert rows[0]["start"].endswith("Z")
