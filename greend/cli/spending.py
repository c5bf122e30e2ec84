"""Budgets and what is left of them, as rows of a table and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.text import Text

from greend.cli.output import bar, table
from greend.units import format_carbon, format_duration, format_energy, format_power, significant

if TYPE_CHECKING:
    from rich.table import Table

    from greend import wire
    from greend.daemon.status import JobNow


def _money(value: float | None) -> str:
    return "?" if value is None else significant(value)


KINDS: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "energy_j": ("energy", format_energy),
    "carbon_g": ("carbon", format_carbon),
    "cost": ("cost", _money),
}
"""What may be spent: fields of a job's limits and of a period's, how each is called, and how written."""

TOO_EARLY = 0.02
"""In the first hundredths of a period nothing is expected of the rest of it yet."""


@dataclass(frozen=True, slots=True)
class Spending:
    """One limit, and how much of it is used."""

    of: str
    """Whose: a job's id and name, `this day` or `this month`."""
    kind: str
    """A field of Limits."""
    budget: float
    spent: float | None = None
    expected: float | None = None
    """What will be spent at the end of the job or of the period; None: nobody knows yet."""
    note: str = ""
    """For a limit that is not spent: what it means, in words."""

    @property
    def left(self) -> float | None:
        """What may still be spent; less than zero when it is passed."""
        return self.budget - self.spent if self.spent is not None else None

    def cells(self) -> list[str | Text]:
        """Return one row of the table."""
        if self.kind not in KINDS:
            return [self.of, self.kind, self.note, "-", "-", "-", ""]
        what, write = KINDS[self.kind]
        return [
            self.of,
            what,
            write(self.budget),
            write(self.spent),
            Text(write(self.left), style="red" if self.left is not None and self.left < 0 else ""),
            self._end(write),
            bar(self.spent / self.budget if self.spent is not None else None),
        ]

    def _end(self, write: Callable[[float | None], str]) -> Text:
        if self.expected is None:
            return Text("?", style="dim")
        over = self.expected > self.budget * (1 + 1e-6)
        return Text(f"~{write(self.expected)}", style="red" if over else "green")

    def json(self) -> dict[str, Any]:
        """Return it as --json prints it, in SI units."""
        figures = ("of", "kind", "budget", "spent", "left", "expected", "note")
        return {name: getattr(self, name) for name in figures}


def of_period(span: wire.PeriodNow, now_ns: int) -> Iterator[Spending]:
    """Yield the limits of a day or a month; the rest of it is expected to go on as it did so far."""
    over = min((now_ns - span.start_wall_ns) / max(span.end_wall_ns - span.start_wall_ns, 1), 1.0)
    spent = {"energy_j": span.spent_j, "carbon_g": span.spent_g, "cost": span.spent_cost}
    for kind, used in spent.items():
        budget = getattr(span, kind)
        if budget is not None:
            expected = used / over if used is not None and over > TOO_EARLY else None
            yield Spending(f"this {span.period}", kind, budget, used, expected)


def of_job(job: JobNow, now_ns: int) -> Iterator[Spending]:
    """Yield the limits of a running job, grams and money at the rate of its joules so far."""
    of = f"{job.id} {job.name}"
    spent = {"energy_j": job.spent_j, "carbon_g": job.spent_g, "cost": job.spent_cost}
    more = job.expected_j / job.spent_j if job.expected_j is not None and job.spent_j > 0 else None
    for kind, used in spent.items():
        budget = getattr(job.limits, kind)
        if budget is not None:
            expected = used * more if used is not None and more is not None else None
            yield Spending(of, kind, budget, used, expected)
    if job.limits.power_w is not None:
        over = "at every instant" if job.limits.hard else f"over {format_duration(job.limits.window_s)}"
        yield Spending(of, "power", job.limits.power_w, note=f"{format_power(job.limits.power_w)} {over}")
    if job.limits.deadline_wall_ns is not None:
        ahead_s = (job.limits.deadline_wall_ns - now_ns) / 1e9
        at = datetime.fromtimestamp(job.limits.deadline_wall_ns / 1e9).astimezone().strftime("%m-%d %H:%M")
        left = f"in {format_duration(ahead_s)}" if ahead_s > 0 else "over"
        yield Spending(of, "deadline", job.limits.deadline_wall_ns / 1e9, note=f"{at}, {left}")


def table_of(found: Sequence[Spending]) -> Table:
    """Return the table of all limits."""
    columns = ["of", "what", "budget", "spent", "left", "at its end", "used"]
    return table(columns, [spent.cells() for spent in found], left=(0, 1, 6), wrap=(0,))
