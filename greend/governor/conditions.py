"""All that the governor may know about a job at one instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from greend.clock import Instant
from greend.governor.profile import LevelProfile


@dataclass(frozen=True, slots=True)
class Machine:
    """How busy and how hot the machine is; None: not known here. Shares lie between 0 and 1."""

    cpu_share: float | None = None
    """Busy share of all cores."""
    cpu_stalled: float | None = None
    """Share of the last 10 s in which something runnable waited for a core (PSI `some avg10`)."""
    memory_stalled: float | None = None
    io_stalled: float | None = None
    memory_free: float | None = None
    """Available share of the memory."""
    gpu_share: float | None = None
    temperature_c: float | None = None
    """Of the hottest sensor that matters (CPU package, GPU)."""
    throttled: bool = False
    """Somebody else (firmware, another program) holds a clock or a limit down."""


@dataclass(frozen=True, slots=True)
class Hour:
    """What a kWh is expected to emit over one stretch of time, in gCO2e."""

    start_wall_ns: int
    end_wall_ns: int
    g_per_kwh: float


@dataclass(frozen=True, slots=True)
class Intensity:
    """Carbon intensity now and ahead. Average and marginal figures are never mixed."""

    now_g_per_kwh: float
    ahead: tuple[Hour, ...] = ()
    """A forecast, or yesterday's shape; empty: none is known."""
    known_wall_ns: int = 0
    """When it was fetched or made: what is too old is not acted on."""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Conditions:
    """One job and the machine that it runs on, at one instant."""

    profile: LevelProfile
    spent_j: float
    steps_done: float
    steps_total: int | None
    steps_before: tuple[int, ...] = ()
    """Steps of earlier runs of the same command that ended well, newest first."""
    level: int | None = None
    """The level in force as the agent last reported it; None: it has not yet."""
    refused: frozenset[int] = frozenset()
    """Levels that the agent could not take."""
    started: Instant | None = None
    attached: Instant | None = None
    switch_s: float = 0.0
    """What a change of level takes, as measured."""
    switch_j: float = 0.0
    tail_j: float = 0.0
    """Expected use after the last step, from the last run of the same command."""
    spent_in: Mapping[str, float] = field(default_factory=dict)
    """Joules that all jobs have used in the `day` and the `month` under way."""
    spent_g: float = 0.0
    """What the job has emitted, each joule at the intensity of its own time."""
    sharing: int = 1
    """How many jobs live on the machine's budgets now."""
    machine: Machine = field(default_factory=Machine)
    intensity: Intensity | None = None
    price_per_kwh: float | None = None
    waiting_w: float = 0.0
    """What counts as the job's power while it waits between steps: the idle power of a device of its own, 0
    where idle joules are nobody's."""
    capped_w: float | None = None
    """A limit that the hardware holds for this job now; None: none."""
