"""The nouns of greend. Plain frozen values: no I/O, no clock, no behaviour beyond arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Flag, StrEnum, auto


class Quality(StrEnum):
    """How a figure is known, best first."""

    MEASURED = "measured"
    MODELLED = "modelled"
    ASSUMED = "assumed"
    MISSING = "missing"


class Kind(StrEnum):
    """What the number of a reading means."""

    COUNTER = "counter"
    """Grows for ever, or until it wraps."""
    GAUGE = "gauge"
    """A level at an instant."""


@dataclass(frozen=True, slots=True)
class CounterKey:
    """Which number of which device: `rapl`, `package-0`, `package_energy`."""

    source: str
    device: str
    counter: str

    def __str__(self) -> str:
        return f"{self.source}:{self.device}:{self.counter}"


@dataclass(frozen=True, slots=True)
class Reading:
    """One number off one device, as the hardware gave it."""

    key: CounterKey
    value: float
    unit: str
    kind: Kind = Kind.COUNTER
    wraps_at: float | None = None
    """The counter restarts at 0 after this value (RAPL: max_energy_range_uj); None: never."""
    max_rate: float | None = None
    """The most that the counter can plausibly grow in one second, in `unit`; None: unknown."""


class IntervalFlag(Flag):
    """What happened to a counter between two readings."""

    NONE = 0
    WRAP = auto()
    """It passed its range once; the amount is exact."""
    RESET = auto()
    """It restarted at 0; the amount is a lower bound."""
    GAP = auto()
    """Reads failed in between; the amount is exact, its place in time is not."""
    AMBIGUOUS = auto()
    """It may have wrapped more than once; the amount is a lower bound."""


@dataclass(frozen=True, slots=True)
class Interval:
    """What a counter grew by over [start, end); for a gauge, its time integral (W becomes J)."""

    key: CounterKey
    unit: str
    amount: float
    start_ns: int
    end_ns: int
    flags: IntervalFlag = IntervalFlag.NONE

    @property
    def seconds(self) -> float:
        """Length of the interval in seconds."""
        return (self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True, slots=True)
class Component:
    """A disjoint part of the machine: `cpu` `package-0`, `dram` `dram-0`, `gpu` `gpu-0`, `disk`, `net`."""

    kind: str
    device: str

    def __str__(self) -> str:
        return self.device if self.device.startswith(self.kind) else f"{self.kind} {self.device}"


@dataclass(frozen=True, slots=True)
class Meter:
    """How joules are known: which meter of which coefficient table, and how well."""

    name: str
    """The meter's name in its table, e.g. `rapl-package` or `cpu-time`."""
    source: str
    """Words for people: `RAPL package`, `CPU time × family table`."""
    quality: Quality
    error: float
    """Relative error at 95 %."""
    table: str
    """Name and version of the coefficient table."""


@dataclass(frozen=True, slots=True)
class ComponentEnergy:
    """What one component used over an interval, split by what it would have used anyway."""

    component: Component
    idle_j: float
    dynamic_j: float
    meter: Meter
    flags: IntervalFlag = IntervalFlag.NONE

    @property
    def energy_j(self) -> float:
        """All of it, in joules."""
        return self.idle_j + self.dynamic_j


@dataclass(frozen=True, slots=True, order=True)
class Consumer:
    """Whose joules: a `job` by its id, `idle`, or `other` (running, but nobody's job)."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.name else self.kind


IDLE = Consumer("idle")
OTHER = Consumer("other")


@dataclass(frozen=True, slots=True)
class Share:
    """The part of one component's joules that one consumer used; the shares of a component add up to it."""

    component: Component
    consumer: Consumer
    energy_j: float
    meter: Meter


@dataclass(frozen=True, slots=True)
class Usage:
    """What one consumer did with the machine over an interval: the basis on which joules are split."""

    consumer: Consumer
    cpu_s: float = 0.0
    """Busy core-seconds of its processes."""
    gpu_sm_s: dict[str, float] = field(default_factory=dict)
    """Seconds of streaming-multiprocessor use, by device name."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the machine is made of, as far as coefficients are scaled by it."""

    threads: int
    dram_gb: float
    cpu_model: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The resource level in force for a job, since when, and why.

    `reason` is the sentence that `greend why` prints; `inputs` are the figures it was made from.
    """

    level: int
    reason: str
    at_wall_ns: int
    at_step: int
    previous: int | None = None
    feasible: bool = True
    inputs: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """A process tree that a person cares about, with what is known of it."""

    id: str
    """Short and unique on this machine, e.g. `j-4f2a9c`."""
    name: str
    command: tuple[str, ...]
    signature: str
    """Equal for runs of the same command by the same user: what one run teaches the next."""
    uid: int
    pid: int
    started_wall_ns: int
    ended_wall_ns: int | None = None
    exit_code: int | None = None
    budget_j: float | None = None
    by_hand: bool = False
    """The budget was given on the command line, not by a default of the machine."""
    steps_total: int | None = None
    steps_done: int = 0
    costs: tuple[float, ...] = ()
    """Estimated cost of each level relative to the top; empty: no agent attached."""
    tail_j: float | None = None
    """What the job used after its last optimizer step."""
    report: tuple[str, ...] = ()
    """What the agent found, proved and rejected in the model."""
