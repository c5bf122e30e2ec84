"""People's units at the edge."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.errors import UnitError
from greend.units import (
    ENERGY_J,
    format_carbon,
    format_duration,
    format_energy,
    format_error,
    format_power,
    nearest,
    parse_carbon,
    parse_cost,
    parse_duration,
    parse_energy,
    parse_power,
    parse_share,
    significant,
)


@pytest.mark.parametrize(
    ("text", "joules"),
    [("30kJ", 3e4), ("0.5 kWh", 1.8e6), ("8Wh", 28800), ("1e3 J", 1e3), (" 2 MJ ", 2e6), (".5J", 0.5)],
)
def test_an_energy_is_read_as_people_write_it(text, joules):
    assert parse_energy(text) == pytest.approx(joules)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("7d", 604800)])
def test_a_duration_is_read_as_people_write_it(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_power, "40 W", 40.0),
        (parse_power, "1.2kW", 1200.0),
        (parse_carbon, "20g", 20.0),
        (parse_carbon, "1.5 kg", 1500.0),
        (parse_cost, "0.10", 0.1),
        (parse_share, "-20%", -0.2),
        (parse_share, "15 %", 0.15),
    ],
)
def test_watts_grams_money_and_changes_are_read_as_people_write_them(parse, text, value):
    assert parse(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("parse", "text", "words"),
    [
        (parse_power, "40", "as a power: the unit is missing; write for example 40W"),
        (parse_power, "40 kWh", "unknown unit 'kWh' (did you mean 'kW'?)"),
        (parse_carbon, "20", "as an emission: the unit is missing"),
        (parse_cost, "0.10 EUR", "write a number alone"),
        (parse_cost, "nan", "it must be more than zero"),
        (parse_cost, "-1", "it must be more than zero"),
        (parse_share, "20", "write for example -20%"),
    ],
)
def test_what_is_no_power_emission_cost_or_change_is_said(parse, text, words):
    with pytest.raises(UnitError) as error:
        parse(text)

    assert words in str(error.value)


@pytest.mark.parametrize(
    ("grams", "text"), [(None, "?"), (0.0, "0 g"), (0.05, "50.0 mg"), (20, "20.0 g"), (1500, "1.50 kg")]
)
def test_an_emission_is_written_in_the_nearest_unit(grams, text):
    assert format_carbon(grams) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("30", "the unit is missing; write for example 30kJ"),
        ("kJ", "no number in it"),
        ("", "no number in it"),
        ("30 kj", "unknown unit 'kj' (did you mean 'kJ'?)"),
        ("0J", "it must be more than zero"),
        ("-1J", "it must be more than zero"),
        ("1e999J", "it must be more than zero"),
        ("3 k J", "no number in it"),
    ],
)
def test_what_cannot_be_read_is_said_with_a_way_out(text, words):
    with pytest.raises(UnitError) as error:
        parse_energy(text)

    assert words in str(error.value)


@given(st.floats(1e-3, 1e9), st.sampled_from(sorted(ENERGY_J)))
def test_what_is_written_is_read_back(number, unit):
    assert parse_energy(f"{number!r}{unit}") == pytest.approx(number * ENERGY_J[unit])


@given(st.floats(1e-6, 1e12))
def test_three_digits_are_within_half_a_percent(value):
    text = significant(value)

    assert float(text) == pytest.approx(value, rel=5.1e-3)
    assert "e" not in text
    if value < 999.5:
        assert len(text.replace(".", "").lstrip("0")) == 3
    assert significant(-value) == f"-{text}"


@given(st.floats(1e-6, 1e12), st.integers(1, 6))
def test_what_is_rounded_stays_rounded(value, digits):
    assert significant(float(significant(value, digits)), digits) == significant(value, digits)


@pytest.mark.parametrize(
    ("value", "text"), [(9.999, "10.0"), (0.09999, "0.100"), (99.96, "100"), (999.6, "1000"), (1.0, "1.00")]
)
def test_a_number_that_is_rounded_up_gets_no_digit_more(value, text):
    assert significant(value) == text


@given(st.floats(0, 1e12, allow_subnormal=False))
def test_an_energy_keeps_its_size_in_whatever_unit_it_is_written(energy_j):
    for unit in ("auto", *ENERGY_J):
        number, written = format_energy(energy_j, unit).split()
        assert unit in ("auto", written)
        assert float(number) * ENERGY_J[written] == pytest.approx(
            energy_j, rel=5.1e-3, abs=1e-9 * ENERGY_J[written]
        )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0412, "0.0412"), (41.23, "41.2"), (4120.0, "4120"), (0, "0"), (math.nan, "?"), (math.inf, "?")],
)
def test_numbers_have_no_exponent(value, text):
    assert significant(value) == text


@pytest.mark.parametrize(
    ("energy_j", "text"),
    [
        (None, "?"),
        (412.0, "412 J"),
        (25_000, "25.0 kJ"),
        (360_000, "100 Wh"),
        (7.2e6, "2.00 kWh"),
        (0, "0 J"),
    ],
)
def test_an_energy_is_written_in_the_unit_that_people_think_in(energy_j, text):
    assert format_energy(energy_j) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (0.41, "0.41 s"), (8.3, "8.3 s"), (59.4, "59 s"), (59.7, "1m 00s"), (728, "12m 08s"),
     (11100, "3h 05m"), (273600, "3d 04h")],
)  # fmt: skip
def test_a_duration_is_written_short(seconds, text):
    assert format_duration(seconds) == text


def test_power_and_error_are_written_short_and_missing_is_a_question_mark():
    assert [format_power(p) for p in (None, 0, 4e-4, 0.00688, 38.21, 12_500)] == [
        "?", "0 W", "<1 mW", "6.88 mW", "38.2 W", "12.5 kW",
    ]  # fmt: skip
    assert format_energy(None, "kWh") == "?"
    assert [format_error(None), format_error(0.45), format_error(math.inf)] == ["±?", "±45 %", "±?"]


def test_the_nearest_known_word_is_offered_only_if_it_is_near():
    assert nearest("perod_s", ["period_s", "flush_s"]) == " (did you mean 'period_s'?)"
    assert nearest("xyz", ["period_s"]) == ""
