"""`what-if` and `policy test`: jobs that ran, rehearsed under other limits and under a rule."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from greend.clock import NS
from greend.simulation.rehearse import Facts, rehearse
from greend.store import profiles
from greend.store.engine import Store
from greend.store.writes import Batch, write
from greend.types import Component, Consumer, Job, Limits, Meter, Quality, Share

from .test_bad_input import one_line

METER = Meter("cpu-time", "CPU time × W per thread", Quality.MODELLED, 0.45, "default@1")
COSTS = (0.25, 0.5, 0.75, 1.0)
FACTS = Facts(COSTS, (3.0, 5.0, 7.5, 10.0), (0.03, 0.05, 0.075, 0.1), steps=3000, tail_j=20.0, noise=0.02)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Job]:
    """A job that was held to 70 % of what it would have used, one that was never measured, one that runs."""
    budget_j = 0.7 * FACTS.free_j()
    outcome = rehearse(FACTS, Limits(budget_j))
    start = FACTS.started_wall_ns
    job = Job(
        "j-aaaaaa", "held", ("python", "train.py"), "s", 0, 1, start, start + round(outcome.seconds * NS), 0,
        Limits(budget_j), True, 3000, outcome.steps_done, COSTS, 20.0,
    )  # fmt: skip
    others = [
        Job("j-bbbbbb", "plain", ("true",), "t", 0, 2, start, start + NS, 0),
        Job("j-cccccc", "running", ("python", "train.py"), "s", 0, 3, start, costs=COSTS, steps_done=10),
    ]
    share = (
        start,
        start + NS,
        Share(Component("cpu", "cpu"), Consumer("job", job.id), outcome.used_j, METER),
    )
    path = tmp_path_factory.mktemp("past") / "history.db"
    with Store.open(path) as store, store.write() as connection:
        decisions = [(job.id, decision) for decision in outcome.decisions]
        write(connection, Batch(shares=[share], decisions=decisions, jobs={j.id: j for j in (job, *others)}))
        key = profiles.ProfileKey(job.signature, "this", COSTS)
        profiles.save(connection, {key: outcome.profile.remembered()})
    return path, job


def what_if(greend, past, *words: str) -> dict:
    result = greend("what-if", *words, past[1].name, "--db", str(past[0]), "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_a_rehearsal_of_what_did_happen_comes_near_it(greend, past):
    found = what_if(greend, past, "--budget", "-0%")

    assert found["rehearsed"]["energy_j"] == pytest.approx(found["happened"]["energy_j"], rel=0.03)
    assert found["rehearsed"]["seconds"] == pytest.approx(found["happened"]["seconds"], rel=0.1)
    assert found["rehearsed"]["quality"] == pytest.approx(found["happened"]["quality"], rel=0.03)
    assert found["rehearsed"]["steps_done"] == found["happened"]["steps_done"] == 3000


def test_a_fifth_less_is_kept_with_all_steps_done_at_a_lower_quality(greend, past):
    found = what_if(greend, past, "--budget", "-20%")

    budget_j = past[1].budget_j * 0.8
    assert found["limits"]["energy_j"] == pytest.approx(budget_j)
    assert budget_j * 0.95 < found["what_if"]["energy_j"] <= budget_j + 10.0
    assert found["what_if"]["steps_done"] == 3000
    assert sum(found["what_if"]["steps_at"]) == 3000
    assert found["what_if"]["quality"] < found["rehearsed"]["quality"]


def test_what_cannot_suffice_says_why(greend, past):
    result = greend("what-if", "--budget", "-80%", "held", "--db", str(past[0]))

    assert result.code == 0
    assert "needs" in result.out.splitlines()[-1]


def test_the_three_courses_stand_side_by_side(greend, past):
    lines = greend("what-if", "--budget", "10kJ", "held", "--db", str(past[0])).out.splitlines()

    assert "under 10.0 kJ instead of 21.0 kJ" in lines[1]
    rows = {line.split("  ")[0].strip(): line for line in lines[2:] if line.strip()}
    table = [
        rows[name] for name in ("energy", "time", "steps", "quality", "at level 3, the top", "at level 0")
    ]
    assert len({len(line.rstrip()) for line in table}) == 1
    assert "happened" in lines[2] or "happened" in lines[3]


def test_of_a_job_that_ended_early_it_is_said_for_how_many_steps_is_planned(greend, past, tmp_path):
    path = tmp_path / "history.db"
    shutil.copy(past[0], path)
    with Store.open(path) as store, store.write() as connection:
        cut = dataclasses.replace(past[1], steps_total=9000)
        write(connection, Batch(jobs={cut.id: cut}))

    out = greend("what-if", "--budget", "-20%", "held", "--db", str(path)).out

    assert "it ended after 3000 of 9000 steps" in out


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (("held",), 2, "name at least one limit"),
        (("--budget", "-100%", "held"), 2, "nothing would be left of it"),
        (("--budget", "20", "held"), 2, "the unit is missing"),
        (("--carbon", "20g", "held"), 6, "set pricing.intensity_g_per_kwh"),
        (("--cost", "0.1", "held"), 6, "set pricing.price_per_kwh"),
        (("--budget", "-20%", "plain"), 1, "no agent was attached to it"),
        (("--budget", "-20%", "running"), 1, "it still runs"),
        (("--budget", "-20%", "nobody"), 1, "no such job"),
    ],
)
def test_what_cannot_be_rehearsed_is_said(greend, past, words, code, problem):
    result = greend("what-if", *words, "--db", str(past[0]))

    assert result.code == code
    assert problem in one_line(result.err)


def test_a_policy_is_rehearsed_over_the_jobs_that_ran(greend, past, home):
    folder = home / "config" / "greend"
    folder.mkdir(parents=True)
    (folder / "greend.toml").write_text("[policies.low]\nmode = 'advise'\nlevel = 0\n")
    words = ("policy", "test", "low", "--since", "1970-01-01", "--db", str(past[0]))

    found = json.loads(greend(*words, "--json").out)
    [row] = found["jobs"]
    out = greend(*words).out

    assert row["job"] == "j-aaaaaa"
    assert row["under"]["steps_at"][0] > 2900
    assert found["saved_j"] == pytest.approx(row["without"]["energy_j"] - row["under"]["energy_j"])
    assert found["saved_j"] > 0
    assert "low would have saved" in out


def test_a_policy_that_met_no_job_says_so(greend, past, home):
    folder = home / "config" / "greend"
    folder.mkdir(parents=True)
    (folder / "greend.toml").write_text("[policies.low]\nlevel = 0\n")

    result = greend("policy", "test", "low", "--since", "9998-01-01", "--db", str(past[0]))

    assert result.code == 1
    assert "look further back with --since 90d" in one_line(result.err)
