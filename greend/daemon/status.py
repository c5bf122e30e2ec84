"""How the daemon is, in one value: what `GET /status` answers and `greend status` prints."""

from __future__ import annotations

from dataclasses import dataclass, field

from greend.types import Limits


@dataclass(frozen=True, slots=True)
class ComponentNow:
    """One component over the last turn."""

    name: str
    kind: str
    power_w: float
    source: str
    quality: str
    error: float
    """Relative error at 95 %."""


@dataclass(frozen=True, slots=True)
class JobNow:
    """One running job."""

    id: str
    name: str
    spent_j: float
    budget_j: float | None
    level: int | None
    top: int | None
    steps_done: int
    steps_total: int | None
    limits: Limits = field(default_factory=Limits)
    spent_g: float | None = None
    """None: no carbon intensity is known."""
    spent_cost: float | None = None
    """None: no price is set."""
    expected_j: float | None = None
    """What it will have used at its end: its budget where the levels can meet it; None: not known yet."""
    pace: float = 1.0
    power_w: float | None = None
    """The average power that it is held to; None: no such limit."""
    action: str = "run"
    by: str = ""
    """The constraint that binds; empty: none does."""
    advised: bool = False
    """What binds is only said, and the job runs at the top."""


@dataclass(frozen=True, slots=True)
class Status:
    """All of it."""

    version: str
    host: str
    pid: int
    mode: str
    uptime_s: float
    period_s: float
    database: str
    sample_age_s: float | None
    """Seconds since the last turn; None before the first."""
    power_w: float | None
    error: float | None
    """Relative error of `power_w` at 95 %."""
    components: list[ComponentNow] = field(default_factory=list)
    jobs: list[JobNow] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    """Each source with why it is off, or an empty text where it works."""
    problems: dict[str, str] = field(default_factory=dict)
    """What failed at the last turn, by source or device."""
