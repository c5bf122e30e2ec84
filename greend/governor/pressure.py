"""Pressure: the machine is too busy, too full or too hot, and the job gives way until it is not.

A detector (above a threshold, for a while, not falling fast already) leads to one action; then nothing for
a while, since what is measured lags behind; then it is looked again. Down within seconds, up one step after
a quiet time of minutes, and after twice that time where going up brought the pressure back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from greend.clock import Instant
from greend.governor.conditions import Conditions, Machine
from greend.governor.constraint import Memory
from greend.types import Bound, Rank
from greend.units import format_duration

FALLING = 0.85
"""Below this share of what it was at the last turn it is falling fast by itself: no action is needed."""
CLEAR = 0.9
"""It is over below this share of the threshold: no flicker about it..."""
CLEAR_C = 3.0
"""...and a temperature so far below: degrees do not begin at nothing."""
LONGEST_QUIET_S = 3600.0
"""However often going up failed, it is tried once an hour."""
USELESS_ACTIONS = 2
"""After so many actions that moved nothing, the job is not what causes it."""
MOVED = 0.95
"""Above this share of what it was before them, actions have moved nothing."""
PACES = (0.75, 0.5)
"""What heat takes first, before any level: waiting cools at once, and costs no quality."""
LOADER_GPU_SHARE = (0.05, 0.5)
"""A GPU that is used, but less than half of the time, waits for whoever feeds it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One number of the machine that may be too high (or, for what is free, too low)."""

    name: str
    what: str
    """What the number is, as a sentence's end: `40 % of the time something waited for a core`."""
    read: Callable[[Machine], float | None]
    unit: str = "%"
    rank: Rank = Rank.USER
    below: bool = False
    """Too little of it is the pressure."""
    cools: bool = False
    """The pace is lowered before the level."""


KINDS = {
    kind.name: kind
    for kind in (
        Kind("cpu_busy", "of all cores are busy", lambda m: m.cpu_share),
        Kind("cpu_stalled", "of the time something waited for a core", lambda m: m.cpu_stalled),
        Kind("gpu_busy", "of the time the GPU is busy", lambda m: m.gpu_share),
        Kind("io_stalled", "of the time something waited for a disk", lambda m: m.io_stalled),
        Kind(
            "memory_stalled", "of the time something waited for memory",
            lambda m: m.memory_stalled, rank=Rank.SAFETY,
        ),
        Kind("memory_free", "of the memory are free", lambda m: m.memory_free, rank=Rank.SAFETY, below=True),
        Kind(
            "temperature", "at the hottest sensor",
            lambda m: m.temperature_c, unit="°C", rank=Rank.SAFETY, cools=True,
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Watch:
    """What a pressure remembers."""

    value: float | None = None
    """What was read at the last turn."""
    over_since: Instant | None = None
    acted: Instant | None = None
    """When the last action was taken, up or down."""
    quiet_since: Instant | None = None
    quiet_s: float = 0.0
    """How long it has to be quiet before the next step up; 0: as long as usual."""
    rose: bool = False
    """The last action was a step up."""
    level: int | None = None
    """None: not lowered."""
    pace: float = 1.0
    actions: int = 0
    """Steps down since it began..."""
    began: float = 0.0
    """...and what was read then."""
    useless: bool = False
    """They moved nothing: it is let be until it is over."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """The job gives way while a number of the machine is above (for what is free: below) `threshold`.

    Shares are between 0 and 1, a temperature is in °C.
    """

    kind: str
    """A key of `KINDS`."""
    threshold: float
    lasting_s: float = 5.0
    """For so long before the first action."""
    settle_s: float = 10.0
    """After an action, before the next: pressure is an average over the last 10 s."""
    quiet_s: float = 60.0
    """Of quiet, before a step up."""
    by: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a pressure of kind {self.kind!r}: there are {', '.join(KINDS)}")
        if not self.by:
            object.__setattr__(self, "by", f"{self.kind.replace('_', ' ')} pressure")

    def bound(self, conditions: Conditions, memory: Memory, now: Instant) -> tuple[Bound | None, Memory]:
        """Return how far the job gives way; None: it does not."""
        kind = KINDS[self.kind]
        value = kind.read(conditions.machine)
        watch = memory if isinstance(memory, Watch) else Watch()
        if value is None:
            # A sensor that is gone says nothing: what was given way stays given.
            return self._bound(kind, watch, conditions, "not read any more"), watch
        if (
            self.kind in ("cpu_busy", "cpu_stalled")
            and self._over(kind, value)
            and loader_bound(conditions.machine)
        ):
            gpu = f"{(conditions.machine.gpu_share or 0.0) * 100:.0f} %"
            words = (
                f"{self._words(kind, value)}, but the GPU is busy {gpu} of the time: it waits for its data"
            )
            reason = f"{words}, and a smaller model would not help (give the loader more or cheaper work)"
            return Bound(self.by, kind.rank, conditions.profile.top, reason), Watch(value)
        after = self._watched(kind, value, watch, conditions, now)
        return self._bound(kind, after, conditions, self._words(kind, value)), after

    def _watched(self, kind: Kind, value: float, watch: Watch, conditions: Conditions, now: Instant) -> Watch:
        over, clear = self._over(kind, value), self._clear(kind, value)
        falling = watch.value is not None and not kind.below and value < FALLING * watch.value
        if clear and not over and watch.acted is None and watch.over_since is None:
            return Watch(value, quiet_since=watch.quiet_since or now)  # nothing is the matter, as mostly
        after = replace(
            watch,
            value=value,
            over_since=(watch.over_since or now) if over else None,
            quiet_since=(watch.quiet_since or now) if clear else None,
            useless=watch.useless and not clear,
        )
        settled = watch.acted is None or now.seconds_since(watch.acted) >= self.settle_s
        lasted = after.over_since is not None and now.seconds_since(after.over_since) >= self.lasting_s
        if lasted and settled and not falling and not after.useless:
            return self._down(kind, value, after, conditions, now)
        held = after.level is not None or after.pace < 1.0
        quiet_s = after.quiet_s or self.quiet_s
        quiet = after.quiet_since is not None and now.seconds_since(after.quiet_since) >= quiet_s
        if held and quiet and settled:
            return self._up(after, conditions, now)
        if not held and quiet:
            return Watch(value, quiet_since=after.quiet_since)
        return after

    def _down(self, kind: Kind, value: float, watch: Watch, conditions: Conditions, now: Instant) -> Watch:
        began = watch.began if watch.actions else value
        if kind.rank is not Rank.SAFETY and watch.actions >= USELESS_ACTIONS and value > MOVED * began:
            # Not this job's: to take more from it would help nobody.
            return Watch(value, over_since=watch.over_since, acted=now, useless=True)
        quiet_s = watch.quiet_s or self.quiet_s
        if watch.rose:
            quiet_s = min(2 * quiet_s, max(LONGEST_QUIET_S, self.quiet_s))
        after = replace(
            watch, acted=now, rose=False, quiet_s=quiet_s, actions=watch.actions + 1, began=began,
            quiet_since=None,
        )  # fmt: skip
        slower = next((pace for pace in PACES if pace < watch.pace), None) if kind.cools else None
        if slower is not None:
            return replace(after, pace=slower)
        # Something else may hold it lower already.
        top, current = conditions.profile.top, conditions.level
        at = min(level for level in (watch.level, current, top) if level is not None)
        return replace(after, level=self._below(at, conditions))

    def _up(self, watch: Watch, conditions: Conditions, now: Instant) -> Watch:
        after = replace(watch, acted=now, rose=True, quiet_since=now, actions=0)
        if watch.level is not None:
            level = watch.level + 1
            return replace(after, level=level if level < conditions.profile.top else None)
        pace = next((pace for pace in reversed(PACES) if pace > watch.pace), 1.0)
        return replace(after, pace=pace)

    def _below(self, level: int, conditions: Conditions) -> int:
        dead = conditions.profile.dead
        return next((below for below in range(level - 1, -1, -1) if below not in dead), 0)

    def _over(self, kind: Kind, value: float) -> bool:
        return value < self.threshold if kind.below else value > self.threshold

    def _clear(self, kind: Kind, value: float) -> bool:
        if kind.below:
            return value > self.threshold / CLEAR
        return value < (self.threshold - CLEAR_C if kind.cools else self.threshold * CLEAR)

    def _bound(self, kind: Kind, watch: Watch, conditions: Conditions, words: str) -> Bound | None:
        top = conditions.profile.top
        unit = "c" if kind.unit == "°C" else "share"
        figures = {f"{self.kind}_{unit}": watch.value} if watch.value is not None else {}
        if watch.useless:
            reason = f"{words}, and smaller levels moved nothing: it does not come from this job"
            return Bound(self.by, kind.rank, top, reason, figures=figures)
        if watch.level is None and watch.pace >= 1.0:
            return None
        given = f"level {watch.level}" if watch.level is not None else f"{watch.pace:.0%} of full speed"
        quiet = format_duration(watch.quiet_s or self.quiet_s)
        reason = f"{words}: {given} until it has been quiet for {quiet}"
        level = watch.level if watch.level is not None else top
        return Bound(self.by, kind.rank, level, reason, pace=watch.pace, urgent=True, figures=figures)

    def _words(self, kind: Kind, value: float) -> str:
        scale = 100.0 if kind.unit == "%" else 1.0
        side = "below" if kind.below else "above"
        over = self._over(kind, value)
        limit = f"{self.threshold * scale:.0f} {kind.unit}"
        is_over = f"{side} {limit}" if over else f"the limit is {limit}"
        return f"{value * scale:.0f} {kind.unit} {kind.what}, {is_over}"


def loader_bound(machine: Machine) -> bool:
    """Whether the GPU is used, but little: with all cores at work it waits for its data."""
    if machine.gpu_share is None:
        return False
    least, most = LOADER_GPU_SHARE
    return least <= machine.gpu_share < most
