"""Levels and knobs as people write them."""

from __future__ import annotations

import pytest

from greend.choice import checked_knobs, checked_levels, parse_knobs, parse_levels


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("4", 4),
        ("1", 1),
        ("0.25,0.5,1", (0.25, 0.5, 1.0)),
        ("0.5", (0.5, 1.0)),  # the top is always there
        ("1.0", (1.0,)),
        (" .5, .25 ", (0.25, 0.5, 1.0)),
    ],
)
def test_levels_are_a_number_or_costs_in_order(text, levels):
    assert parse_levels(text) == levels


@pytest.mark.parametrize(
    "text", ["0", "9", "-1", "x", "0.5,x", "0.5,2", "0,1", "0.5,0.5", "", "nan", "1e-9,inf"]
)
def test_levels_that_there_cannot_be_are_refused_in_words(text):
    with pytest.raises(ValueError, match="levels="):
        parse_levels(text)


@pytest.mark.parametrize("levels", [True, 2.5, None, "4", [0.1 * k for k in range(1, 9)], [], {}])
def test_attach_takes_no_other_kind_of_levels(levels):
    with pytest.raises(ValueError, match="levels="):
        checked_levels(levels)


def test_knobs_are_names_that_there_are():
    assert parse_knobs("ffn, heads") == {"ffn", "heads"}
    assert parse_knobs("") is None
    assert checked_knobs(None) is None
    assert checked_knobs([]) == set()
    with pytest.raises(ValueError, match="did you mean 'ffn'"):
        parse_knobs("fnf")
    with pytest.raises(ValueError, match="a list of names"):
        checked_knobs("ffn")
