"""`greend sim`: limits rehearsed on a job that is made up, with no daemon and no history."""

import json

import pytest

from .test_bad_input import one_line

SHORT = ("--steps", "1500", "--seed", "3")


def sim(greend, *words: str) -> dict:
    result = greend("sim", *SHORT, *words, "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_without_limits_the_job_is_left_alone(greend):
    found = sim(greend)

    assert found["held"]["steps_at"] == found["free"]["steps_at"] == [0, 0, 0, 1500]
    assert found["free"]["quality"] == 1.0


@pytest.mark.parametrize("order", ["mixed", "rising"])
def test_a_share_is_of_what_the_job_would_use_free(greend, order):
    found = sim(greend, "--budget", "60%", "--order", order)

    assert found["limits"]["energy_j"] == pytest.approx(0.6 * found["free"]["energy_j"], rel=0.01)
    assert found["held"]["energy_j"] <= found["limits"]["energy_j"] + 300
    assert found["held"]["steps_done"] == 1500
    assert 0.5 < found["held"]["quality"] < 1.0


def test_the_same_seed_is_the_same_job(greend):
    first, again = sim(greend, "--budget", "300kJ"), sim(greend, "--budget", "300kJ")

    for course in ("free", "held"):
        assert first[course]["energy_j"] == again[course]["energy_j"]
        assert first[course]["steps_at"] == again[course]["steps_at"]


def test_a_cap_is_held(greend):
    held = sim(greend, "--power", "200W")["held"]

    assert held["energy_j"] / held["seconds"] == pytest.approx(200.0, rel=0.01)


def test_a_budget_that_cannot_be_met_is_said(greend):
    result = greend("sim", *SHORT, "--budget", "15%")

    assert result.code == 0
    assert "cannot be met" in result.out
    assert not sim(greend, "--budget", "15%")["held"]["feasible"]


def test_a_picture_and_a_table_stand_beside_each_other(greend):
    result = greend("sim", *SHORT, "--budget", "70%", "--levels", "0.3,0.6,1", "--why")

    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].startswith("── greend")
    assert any(line.startswith("   top 2 ┤") for line in lines)
    [quality] = [line.split() for line in lines if line.strip().startswith("quality")]
    assert quality[1] == "1.000"
    assert any("a step" in line and line.startswith("step") for line in lines)


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (("--levels", "9"), 2, "from 1 to 8 levels"),
        (("--noise", "120%"), 2, "--noise 120%: it lies from 0% to below 100%"),
        (("--drift", "-100%"), 2, "nothing would be left of a step"),
        (("--idle", "400W"), 2, "idle lies below that"),
        (("--budget", "0%"), 2, "more than 0%"),
        (("--budget", "12 parsecs"), 2, "unknown unit"),
        (("--power", "100W", "--hard"), None, "only hardware"),
        (("--carbon", "5g"), 6, "set pricing.intensity_g_per_kwh"),
        (("--cost", "1"), 6, "set pricing.price_per_kwh"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(greend, words, code, problem):
    result = greend("sim", *SHORT, *words)

    assert problem in one_line(result.err)
    assert code in (None, result.code)
    assert result.code != 0
