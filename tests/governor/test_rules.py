"""Policy rules: which jobs, when, and what a table of the settings means."""

from datetime import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.errors import ConfigError
from greend.governor.rules import Hours, Rule, applies, parse
from greend.types import Job, Limits

JOB = Job("j-1", "train-gpt", ("python",), "s", 1000, 42, 0)


@pytest.mark.parametrize(
    ("begin", "end", "at", "holds"),
    [
        ((8, 0), (18, 0), (8, 0), True),
        ((8, 0), (18, 0), (18, 0), False),
        ((8, 0), (18, 0), (7, 59), False),
        ((22, 0), (6, 0), (23, 30), True),
        ((22, 0), (6, 0), (0, 0), True),
        ((22, 0), (6, 0), (5, 59), True),
        ((22, 0), (6, 0), (6, 0), False),
        ((22, 0), (6, 0), (12, 0), False),
    ],
)
def test_hours_may_go_past_midnight(begin, end, at, holds):
    assert Hours(time(*begin), time(*end)).holds(time(*at)) is holds


@given(st.times(), st.times(), st.times())
def test_a_time_is_within_hours_or_within_the_rest_of_the_day(begin, end, at):
    if begin != end:
        assert Hours(begin, end).holds(at) is not Hours(end, begin).holds(at)


@pytest.mark.parametrize(
    ("patterns", "holds"),
    [
        (("*",), True),
        (("train*",), True),
        (("eval*", "*gpt"), True),
        (("train",), False),
        (("TRAIN*",), False),
    ],
)
def test_a_rule_is_for_the_jobs_that_its_patterns_name(patterns, holds):
    assert applies(Rule("night", jobs=patterns), JOB, time(12)) is holds


def test_a_rule_holds_at_its_hours_alone():
    rule = Rule("night", when=Hours(time(22), time(6)))

    assert applies(rule, JOB, time(23))
    assert not applies(rule, JOB, time(12))


def test_a_table_becomes_a_rule():
    rule = parse(
        "night",
        {
            "mode": "act",
            "when": "22:00-6:00",
            "jobs": ["train*", "eval"],
            "energy": "30kJ",
            "carbon": "20g",
            "cost": 0.5,
            "power": "40W",
            "window": "30s",
            "machine_power": "200 W",
            "on_infeasible": "pause",
            "order": "mixed",
            "level": 2,
            "level_at_least": 1,
            "cpu_stalled_above": "40%",
            "memory_free_below": "10 %",
            "temperature_above": "80C",
            "lasting": "10s",
        },
    )

    assert rule == Rule(
        "night",
        "act",
        Hours(time(22), time(6)),
        ("train*", "eval"),
        Limits(
            energy_j=30_000,
            carbon_g=20,
            cost=0.5,
            power_w=40,
            window_s=30,
            on_infeasible="pause",
            order="mixed",
        ),
        200.0,
        2,
        1,
        (("cpu_stalled", 0.4), ("memory_free", 0.1), ("temperature", 80.0)),
        10.0,
    )


def test_a_rule_only_advises_until_it_is_told_to_act():
    assert parse("night", {}).mode == "advise"


def test_a_day_ends_at_24():
    assert parse("late", {"when": "22:00-24:00"}).when == Hours(time(22), time(0))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"xyzzy": "full"}, "xyzzy: unknown key; known: mode, when"),
        ({"powr": "40W"}, "powr: unknown key .did you mean 'power'"),
        ({"mode": "obey"}, "mode: 'obey': one of advise, act was expected"),
        ({"when": "night"}, "when: 'night': write it as 22:00-06:00"),
        ({"when": "25:00-26:00"}, "when: '25:00-26:00'"),
        ({"when": "24:30-06:00"}, "when: '24:30-06:00'"),
        ({"when": "06:00-06:00"}, "it begins where it ends; leave `when` out"),
        ({"when": 22}, "when: 22: write it"),
        ({"jobs": []}, "jobs: \\[\\]: write patterns"),
        ({"jobs": [3]}, "jobs: \\[3\\]: write patterns"),
        ({"energy": 30_000}, "energy: 30000: write it as text with its unit"),
        ({"energy": "30"}, "energy: .*the unit is missing"),
        ({"power": "40 watts"}, "power: .*unknown unit 'watts'"),
        ({"cost": "-1"}, "cost: .*more than zero"),
        ({"level": -1}, "level: -1: a resource level"),
        ({"level": True}, "level: True: a resource level"),
        ({"level": 1.5}, "level: 1.5: a resource level"),
        ({"window": "10s"}, "window: it is about a power"),
        ({"cpu_busy_above": 0.9}, "cpu_busy_above: 0.9: write it with its unit, as '40%'"),
        ({"cpu_busy_above": "120%"}, "a share lies between"),
        ({"temperature_above": "80"}, "temperature_above: '80': write it with its unit, as '80C'"),
        ({"temperature_above": "80%"}, "as '80C'"),
        ({"on_infeasible": "explode"}, "one of run_level_0"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_policy_the_key_and_the_way_to_write_it(body, words):
    with pytest.raises(ConfigError, match=words) as refused:
        parse("night", body)
    assert str(refused.value).startswith(f"read policy 'night': {next(iter(body))}: ")


def test_a_policy_has_a_name():
    with pytest.raises(ConfigError, match="it needs a name"):
        parse("", {})
