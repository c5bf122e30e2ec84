"""A step chart of resource levels for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from greend.cli.output import level_style


def level_chart(
    changes: Sequence[tuple[float, int]], end: float, top: int, width: int = 64, unit: str = "steps"
) -> Text:
    """Draw the level in force over an axis from the first change to `end`.

    `changes` holds (position, level) in rising order; the level holds until the next position.
    """
    if not changes or end <= changes[0][0]:
        return Text("no level was ever set", style="dim")
    start = changes[0][0]
    columns = [_level_at(changes, start + (end - start) * (i + 0.5) / width) for i in range(width)]
    margin = len(str(top)) + 8
    chart = Text()
    for level in range(top, -1, -1):
        name = "top" if level == top else "least" if level == 0 else ""
        chart.append(f"{name:>6} {level:>{len(str(top))}} ", style="dim")
        chart.append("┤", style="dim")
        for i, now in enumerate(columns):
            before = columns[i - 1] if i else now
            chart.append(_cell(level, before, now), style=level_style(level if now == level else now, top))
        chart.append("\n")
    chart.append(" " * margin + "└" + "─" * width + "\n", style="dim")
    left, right = f"{start:.0f}", f"{end:.0f} {unit}"
    chart.append(" " * (margin + 1) + left + right.rjust(width - len(left)), style="dim")
    return chart


def _level_at(changes: Sequence[tuple[float, int]], position: float) -> int:
    level = changes[0][1]
    for at, new in changes:
        if at > position:
            break
        level = new
    return level


def _cell(row: int, before: int, now: int) -> str:
    """Return the character of one row where the line goes from `before` to `now`."""
    if before == now:
        return "━" if row == now else " "
    low, high = sorted((before, now))
    if row == now:
        return "┏" if now > before else "┗"
    if row == before:
        return "┓" if now < before else "┛"
    return "┃" if low < row < high else " "
