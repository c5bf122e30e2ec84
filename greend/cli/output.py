"""How greend looks: tables that align, colours with meaning, `~` for modelled and `?` for missing."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from greend.units import format_power

if TYPE_CHECKING:
    from greend.daemon.status import JobNow
    from greend.types import Decision

SCHEMA_VERSION = 1
"""Raised only when names or structure of existing content change."""

LEVEL_STYLES = ("red", "yellow", "cyan", "green")
"""Least to top: the warmer, the further from the user's own model."""
QUALITY_STYLES = {"measured": "green", "modelled": "yellow", "assumed": "yellow", "missing": "red"}


def console(stderr: bool = False) -> Console:
    """Return a console; where nobody looks (a pipe, a file) no line is wrapped or cut."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 100_000
    return Console(file=stream, highlight=False, width=width, soft_wrap=False)


def print_json(data: dict[str, Any]) -> None:
    """Print one JSON object with the schema's version first; a number that is none is null."""
    print(json.dumps(_finite({"schema_version": SCHEMA_VERSION, **data}), ensure_ascii=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def approx(text: str, quality: str | None) -> str:
    """Mark a figure that no meter has seen."""
    sure = text == "?" or text.startswith(("0 ", "<"))
    return f"~{text}" if quality in ("modelled", "assumed") and not sure else text


def level_style(level: int, top: int) -> str:
    """Return the colour of a level."""
    if top <= 0:
        return LEVEL_STYLES[-1]
    return LEVEL_STYLES[round(level / top * (len(LEVEL_STYLES) - 1))]


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    footer: Sequence[str] | None = None,
    left: Sequence[int] = (0,),
    wrap: Sequence[int] = (),
) -> Table:
    """Return a table whose figures align on the right; `left` names the columns of words.

    Where the terminal is narrow, the columns in `wrap` give way; a figure is never cut.
    """
    grid = Table(
        box=box.SIMPLE,
        header_style="bold",
        footer_style="bold",
        show_footer=footer is not None,
        pad_edge=False,
        collapse_padding=True,
    )
    for index, name in enumerate(columns):
        grid.add_column(
            name,
            justify="left" if index in left else "right",
            no_wrap=index not in wrap,
            overflow="fold",
            footer=footer[index] if footer is not None else "",
        )
    for row in rows:
        grid.add_row(*(plain(cell) if isinstance(cell, str) else cell for cell in row))
    return grid


def force(now: Decision | JobNow) -> Text:
    """Write what is in force beside the level, as `[at most 40.0 W] [pace 50 %]`; empty for nothing."""
    words = [
        (f"at most {format_power(now.power_w)}" if now.power_w is not None else "", "cyan"),
        (f"pace {now.pace * 100:.0f} %" if now.pace < 1 else "", "cyan"),
        (str(now.action) if now.action != "run" else "", "bold red"),
        ("only advised" if now.advised else "", "magenta"),
    ]
    return Text.assemble(*((f"[{word}] ", style) for word, style in words if word))


def bar(share: float | None, width: int = 12) -> Text:
    """Draw how much is used, in eighths of a cell: green, yellow from 85 % on, red above all of it."""
    if share is None or not math.isfinite(share):
        return Text("?", style="dim")
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    full, part = divmod(eighths, 8)
    drawn = "█" * full + ("▏▎▍▌▋▊▉"[part - 1] if part else "")
    style = "red" if share > 1 else "yellow" if share > 0.85 else "green"
    return Text.assemble((drawn, style), ("░" * (width - len(drawn)), "dim"), f" {share * 100:.0f} %")


def plain(text: str, style: str = "") -> Text:
    """Return a text as it is: no markup, and nothing in it that a terminal would obey."""
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text), style=style)


def hanging(rows: Sequence[Sequence[Text]], figures: Sequence[int] = ()) -> Table:
    """Return lines of short columns and a long text, which wraps under itself on a narrow terminal."""
    grid = Table.grid(padding=(0, 2))
    for index in range(len(rows[0]) - 1 if rows else 0):
        grid.add_column(justify="right" if index in figures else "left", no_wrap=True)
    grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(*row)
    return grid


def rule(out: Console, right: str) -> None:
    """Print the line that sets greend's words apart from a command's own output."""
    width = min(out.width, 78)
    left = "── greend "
    out.print(left + "─" * max(width - len(left) - len(right) - 1, 3) + " " + right, style="dim")
