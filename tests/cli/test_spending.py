"""Budgets as rows: spent, left, and what is expected at the end."""

from __future__ import annotations

import dataclasses
from datetime import datetime

import pytest

from greend import wire
from greend.cli.spending import of_job, of_period, table_of
from greend.clock import NS
from greend.daemon.status import JobNow
from greend.types import Limits

from .test_output import lines

DAY = wire.PeriodNow("day", 7.2e6, None, None, 1.8e6, None, None, 0, 86_400 * NS)
JOB = JobNow("j-aaaaaa", "held", 12e3, 30e3, 1, 3, 500, 1000, Limits(30e3), expected_j=30e3)


def test_a_day_is_expected_to_go_on_as_it_did():
    [spent] = of_period(DAY, 8 * 3600 * NS)

    assert (spent.left, spent.expected) == (5.4e6, pytest.approx(5.4e6))


def test_nothing_is_expected_of_a_day_that_has_just_begun():
    [spent] = of_period(DAY, 60 * NS)

    assert spent.expected is None


def test_grams_that_nobody_counts_are_missing_and_not_zero():
    [_, carbon] = of_period(dataclasses.replace(DAY, carbon_g=500.0), 8 * 3600 * NS)

    assert (carbon.kind, carbon.spent, carbon.left, carbon.expected) == ("carbon_g", None, None, None)
    assert lines(table_of([carbon]))[-1].split() == ["this", "day", "carbon", "500", "g", "?", "?", "?", "?"]


def test_a_jobs_grams_are_expected_to_grow_as_its_joules_do():
    job = dataclasses.replace(JOB, limits=Limits(carbon_g=20.0), spent_g=4.0)

    [carbon] = of_job(job, 0)

    assert carbon.expected == pytest.approx(4.0 * 30 / 12)


def test_every_limit_has_a_row_and_its_figures_align():
    deadline = datetime(2026, 11, 19, 18, 0).astimezone()
    now_ns = round(deadline.timestamp() * 1e9) - 5400 * NS
    limits = Limits(30e3, 20.0, 0.1, 40.0, 10.0, False, round(deadline.timestamp() * 1e9))
    job = dataclasses.replace(JOB, limits=limits, spent_g=21.0, spent_cost=0.05)

    shown = lines(table_of([*of_period(DAY, 8 * 3600 * NS), *of_job(job, now_ns)]), 120)

    assert shown == [
        " of             what                      budget    spent      left  at its end  used",
        " " + "─" * 98,
        " this day       energy                  2.00 kWh   500 Wh  1.50 kWh   ~1.50 kWh  ███░░░░░░░░░ 25 %",
        " j-aaaaaa held  energy                   30.0 kJ  12.0 kJ   18.0 kJ    ~30.0 kJ  ████▊░░░░░░░ 40 %",
        " j-aaaaaa held  carbon                    20.0 g   21.0 g   -1.00 g     ~52.5 g  ████████████ 105 %",
        " j-aaaaaa held  cost                       0.100   0.0500    0.0500      ~0.125  ██████░░░░░░ 50 %",
        " j-aaaaaa held  power           40.0 W over 10 s        -         -           -",
        " j-aaaaaa held  deadline  11-19 18:00, in 1h 30m        -         -           -",
    ]


def test_a_cap_without_a_window_says_so_and_a_deadline_that_is_over_too():
    job = dataclasses.replace(JOB, limits=Limits(power_w=40.0, hard=True, deadline_wall_ns=NS))

    power, deadline = of_job(job, 2 * NS)

    assert power.note == "40.0 W at every instant"
    assert deadline.note.endswith(", over")
