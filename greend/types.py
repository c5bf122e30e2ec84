"""The nouns of greend. Plain frozen values: no I/O, no clock, no behaviour beyond arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Flag, IntEnum, StrEnum, auto


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


class Rank(IntEnum):
    """Whose bound counts where several ask for the same, first things first."""

    SAFETY = 0
    CAP = 1
    BUDGET = 2
    CARBON = 3
    USER = 4


class Action(StrEnum):
    """What a job is to do."""

    RUN = "run"
    PAUSE = "pause"
    """Wait before the next step until told otherwise."""
    STOP = "stop"
    """Save a checkpoint and end, where the job's loop can."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The limit that one constraint puts on a job's level and pace, with its reason."""

    by: str
    """Which constraint: `energy budget`, `power cap`, `deadline`, `cpu pressure`, `hold by ana`..."""
    rank: Rank
    level: int
    """The highest level that it allows."""
    reason: str
    """A sentence for people, with its figures."""
    pace: float = 1.0
    """The largest share of full speed that it allows."""
    power_w: float | None = None
    """The average power that the job is to hold by a token bucket in joules; None: no such limit."""
    burst_j: float | None = None
    """How much the bucket holds; None: what the agent takes by default."""
    urgent: bool = False
    """It does not wait for the least time between two changes."""
    feasible: bool = True
    action: Action = Action.RUN
    figures: dict[str, float] = field(default_factory=dict)
    """What it was reckoned from, with units in the names."""
    floor: int = 0
    """The level below which budgets and users may not push the job; caps and safety may."""
    advised: bool = False
    """It is only said: the policy that it is from does not act."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may use; None: no such limit."""

    energy_j: float | None = None
    carbon_g: float | None = None
    cost: float | None = None
    """In the currency of the price per kWh."""
    power_w: float | None = None
    """Average power over any window of `window_s`."""
    window_s: float = 10.0
    hard: bool = False
    """The power must not be passed for an instant: only hardware can keep that."""
    deadline_wall_ns: int | None = None
    on_infeasible: str = "run_level_0"
    """`run_level_0`, `stop_at_checkpoint` or `pause`: what follows when a budget cannot be met."""
    order: str = "rising"
    """`rising`: low first and the top last, for training; `mixed`: the two best levels in turn."""


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
    pace: float = 1.0
    power_w: float | None = None
    burst_j: float | None = None
    action: Action = Action.RUN
    by: str = ""
    """The constraint whose bound this is; empty: nothing bound."""
    bounds: tuple[Bound, ...] = ()
    """What every constraint allowed at this moment, the binding one among them."""
    advised: bool = False
    """Nothing that acts binds, and a policy that only advises would have: `level` is the top, which is in
    force, and what it would have been stands in those `bounds` that are `advised`."""


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
    limits: Limits = field(default_factory=Limits)
    by_hand: bool = False
    """The limits were given by a person for this job, not by a default of the machine."""
    steps_total: int | None = None
    steps_done: int = 0
    costs: tuple[float, ...] = ()
    """Estimated cost of each level relative to the top; empty: no agent attached."""
    tail_j: float | None = None
    """What the job used after its last optimizer step."""
    carbon_g: float | None = None
    """What it has emitted, each joule at the intensity of its own time; None: no intensity was known."""
    cpu_s: float | None = None
    """CPU seconds of its processes whose joules are on record; None: not known."""
    process: str = ""
    """The boot and the start time of process `pid`: a pid is used again. Empty: not known."""
    report: tuple[str, ...] = ()
    """What the agent found, proved and rejected in the model."""

    @property
    def budget_j(self) -> float | None:
        """The joules that it may use, or None."""
        return self.limits.energy_j


@dataclass(frozen=True, slots=True)
class Lease:
    """Who keeps a job at a level or below, why, and until when."""

    id: str
    job_id: str
    level: int
    reason: str
    name: str
    uid: int
    pid: int
    since_wall_ns: int
    until_mono_ns: int | None = None
    """None: until the connection of process `pid` ends."""
