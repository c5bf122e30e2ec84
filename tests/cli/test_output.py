"""The pieces that every command's output is made of."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from rich.text import Text

from greend.cli.output import LEVEL_STYLES, approx, hanging, level_style, plain, print_json, rule, table
from greend.cli.summary import level_text


def lines(renderable: object, width: int = 80) -> list[str]:
    out = Console(file=io.StringIO(), width=width, highlight=False)
    out.print(renderable)
    return [line.rstrip() for line in out.file.getvalue().splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("text", "quality", "marked"),
    [
        ("38.2 W", "measured", "38.2 W"),
        ("38.2 W", "modelled", "~38.2 W"),
        ("38.2 W", "assumed", "~38.2 W"),
        ("38.2 W", None, "38.2 W"),
        ("?", "modelled", "?"),
        ("0 W", "modelled", "0 W"),
        ("<1 mW", "assumed", "<1 mW"),
        ("0.412 J", "modelled", "~0.412 J"),
    ],
)
def test_a_figure_that_no_meter_has_seen_is_marked(text, quality, marked):
    assert approx(text, quality) == marked


@pytest.mark.parametrize("top", range(8))
def test_levels_go_from_the_warmest_colour_to_the_coolest(top):
    colours = [LEVEL_STYLES.index(level_style(level, top)) for level in range(top + 1)]

    assert colours == sorted(colours)
    assert colours[-1] == len(LEVEL_STYLES) - 1
    assert top == 0 or colours[0] == 0


@pytest.mark.parametrize(
    ("level", "top", "text"), [(2, 3, "2 of 3"), (None, 3, "-"), (0, 0, "-"), (None, None, "-")]
)
def test_a_level_is_written_with_the_top_and_a_job_without_an_agent_has_none(level, top, text):
    assert level_text(level, top).plain == text


def test_figures_align_on_the_right_and_words_on_the_left():
    rows = [["cpu", "9 W", "RAPL"], ["dram", "110 W", "a table"]]

    assert lines(table(["part", "now", "source"], rows, ["sum", "119 W", ""], left=(0, 2))) == [
        " part    now  source",
        " ────────────────────",
        " cpu     9 W  RAPL",
        " dram  110 W  a table",
        " ────────────────────",
        " sum   119 W",
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_on_a_narrow_terminal_the_words_wrap_and_no_figure_is_cut(width):
    name = "a name that somebody typed in by hand and that is far too long"
    shown = lines(table(["job", "energy", "used"], [[name, "12.5 kJ", "99.7 %"]], wrap=(0,)), width)
    inside = [word for line in shown[2:] for word in line.split()]

    assert "12.5 kJ  99.7 %" in shown[2]
    assert [w for w in inside if w not in ("12.5", "kJ", "99.7", "%")] == name.split()
    assert all(len(line) <= width for line in shown)


@pytest.mark.parametrize("name", ["a[/b]", "[bold]x", ":smile:", "[link=file:///etc/passwd]y[/link]"])
def test_a_name_is_shown_to_the_letter_whatever_marks_it_holds(name):
    assert name in "\n".join(lines(table(["job"], [[name]])))


def test_a_name_cannot_command_the_terminal():
    assert plain("a\x1b[2J\x07\nb\t").plain == "a�[2J��b�"
    assert plain("naïve – 98 %").plain == "naïve – 98 %"


def test_a_long_text_wraps_under_itself():
    row = [Text("10:07:24"), Text("level 3"), Text("136 J for 1441 steps left is 94.4 mJ each")]

    assert lines(hanging([row]), 45) == [
        "10:07:24  level 3  136 J for 1441 steps left",
        "                   is 94.4 mJ each",
    ]
    assert lines(hanging([row]), 1000) == ["10:07:24  level 3  136 J for 1441 steps left is 94.4 mJ each"]
    assert lines(hanging([])) == []


@pytest.mark.parametrize("width", [30, 78, 200])
def test_the_line_above_a_summary_ends_with_the_job(width):
    out = Console(file=io.StringIO(), width=width)
    rule(out, "j-4f2a9c")
    text = out.file.getvalue().rstrip("\n")

    assert text.startswith("── greend ─")
    assert text.endswith("─ j-4f2a9c")
    assert len(text) <= min(width, 78)


def test_json_has_the_schema_first_and_null_for_what_is_not_known(capsys):
    print_json({"energy_j": None, "name": "naïve"})
    text = capsys.readouterr().out

    assert text == '{"schema_version": 1, "energy_j": null, "name": "naïve"}\n'
    assert json.loads(text)["energy_j"] is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_never_holds_what_is_not_json(capsys, value):
    print_json({"rows": [{"error": value, "more": (value, 1.5)}]})

    assert '{"error": null, "more": [null, 1.5]}' in capsys.readouterr().out
