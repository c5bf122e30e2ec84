"""The step chart of levels, to the letter."""

from greend.cli.plot import level_chart


def lines(*arguments, **options) -> list[str]:
    return [line.rstrip() for line in level_chart(*arguments, **options).plain.split("\n")]


def test_a_run_that_falls_and_rises_again():
    assert lines([(0, 3), (200, 1), (600, 2), (800, 3)], 1000, 3, width=20) == [
        "   top 3 ┤━━━━┓           ┏━━━",
        "       2 ┤    ┃       ┏━━━┛",
        "       1 ┤    ┗━━━━━━━┛",
        " least 0 ┤",
        "         └────────────────────",
        "          0         1000 steps",
    ]


def test_a_run_that_never_changed():
    assert lines([(0, 1)], 10, 1, width=12)[:2] == ["   top 1 ┤━━━━━━━━━━━━", " least 0 ┤"]


def test_without_a_level_there_is_nothing_to_draw():
    assert lines([], 10, 3) == ["no level was ever set"]
