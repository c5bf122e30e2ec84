"""Readings become intervals: what each counter grew by, told apart from wraps, resets and failed reads.

This is the one place where energy is easily wrong by a whole counter range (262 kJ on Intel), so the
rules stand here and nowhere else:

- The first sight of a counter yields nothing.
- A failed read is neither zero nor a new baseline: the last good value stays, the next read covers the gap.
- A counter that fell has wrapped if that is physically possible, else it has restarted at 0.
- Where it may have wrapped more than once, the missing turns are flagged and never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from greend.types import CounterKey, Interval, IntervalFlag, Kind, Reading

NS = 1_000_000_000

REFRESH_S = 0.1
"""Counters move in steps: NVML refreshes its energy every 20-100 ms, RAPL every 1 ms. So much growth of
before an interval may show up inside it."""

INTEGRAL_UNIT = {"W": "J", "GB": "GB.s", "1": "s"}
"""Unit of a gauge's time integral."""


def increase(
    before: float, after: float, wraps_at: float | None, max_rate: float | None, dt_s: float
) -> tuple[float | None, IntervalFlag]:
    """Return what a counter grew by in `dt_s` seconds, in its own unit, and what happened to it.

    `wraps_at` is the value after which it restarts at 0, `max_rate` the most that it can grow in one
    second. None instead of an amount: the two values cannot both be true (a step beyond `max_rate` in
    either direction), so nothing is known about the interval. Raises nothing.
    """
    limit = None if max_rate is None else max_rate * (dt_s + REFRESH_S)
    grown = after - before
    if wraps_at is not None and limit is not None and limit >= wraps_at:
        # 2000 W for 131 s fill Intel's 262 kJ: any number of turns may be hidden here.
        if grown >= 0:
            return grown, IntervalFlag.AMBIGUOUS
        return max(0.0, grown + wraps_at), IntervalFlag.WRAP | IntervalFlag.AMBIGUOUS
    if grown >= 0:
        # A step up that no hardware makes, as seen after resume from suspend, is not energy.
        return (grown, IntervalFlag.NONE) if limit is None or grown <= limit else (None, IntervalFlag.RESET)
    if wraps_at is not None:
        turned = grown + wraps_at
        if turned >= 0 and (limit is None or turned <= limit):
            return turned, IntervalFlag.WRAP
    if limit is None or after <= limit:
        return after, IntervalFlag.RESET
    return None, IntervalFlag.RESET


@dataclass(frozen=True, slots=True)
class Position:
    """Where a counter was last seen, in its own unit, and when on CLOCK_BOOTTIME."""

    value: float
    mono_ns: int


@dataclass(slots=True)
class _Track:
    """One counter or gauge as last read, and since when reads of it have been failing."""

    value: float
    mono_ns: int
    kind: Kind
    missed_since_ns: int | None = None
    restored: bool = False


class CounterBook:
    """The last good value of every counter, and the intervals that follow from the next one.

    `period_s` is the time expected between updates: an interval longer than 1.5 of it is flagged GAP even
    when no read failed (the process was stopped, the machine suspended). `forget_s` is how long a counter
    may be missing before its next value counts as a first sight. Until then it is awaited: its next
    interval covers the gap, so nobody else may price the same seconds.
    """

    def __init__(self, period_s: float | None = None, forget_s: float = 30.0) -> None:
        self._tracks: dict[CounterKey, _Track] = {}
        self._gap_ns = None if period_s is None else round(1.5 * period_s * NS)
        self._forget_ns = round(forget_s * NS)

    def update(self, readings: Iterable[Reading], now_mono_ns: int) -> list[Interval]:
        """Take the readings of one instant and return one interval for each counter seen before.

        A gauge is integrated by the trapezoid rule from its previous reading: W becomes J, GB becomes
        GB.s, a fraction (unit "1") becomes s. Two updates at the same instant yield nothing. Raises nothing.
        """
        intervals: list[Interval] = []
        seen: set[CounterKey] = set()
        for reading in readings:
            seen.add(reading.key)
            track = self._tracks.get(reading.key)
            if track is None:
                self._tracks[reading.key] = _Track(reading.value, now_mono_ns, reading.kind)
                continue
            if now_mono_ns <= track.mono_ns:
                continue
            interval = self._interval(track, reading, now_mono_ns)
            if interval is not None:
                intervals.append(interval)
            track.value, track.mono_ns = reading.value, now_mono_ns
            track.missed_since_ns, track.restored = None, False
        self._note_missed(seen, now_mono_ns)
        return intervals

    def awaited(self) -> frozenset[CounterKey]:
        """Return the counters that the last update lacked, and whose next interval will cover the gap."""
        return frozenset(key for key, track in self._tracks.items() if track.missed_since_ns is not None)

    def positions(self) -> dict[CounterKey, Position]:
        """Return where every counter was last seen, to be saved; gauges have no memory and are left out."""
        return {
            key: Position(track.value, track.mono_ns)
            for key, track in self._tracks.items()
            if track.kind is Kind.COUNTER
        }

    def restore(self, positions: Mapping[CounterKey, Position], now_mono_ns: int) -> None:
        """Go on from positions saved in this boot, so that what was used since is one GAP interval.

        Positions of another boot say nothing, since counters and CLOCK_BOOTTIME restarted: the caller keeps
        them apart by boot id, and one from the future is ignored here. Counters read already are left alone.
        """
        for key, position in positions.items():
            if position.mono_ns < now_mono_ns:
                track = _Track(position.value, position.mono_ns, Kind.COUNTER, restored=True)
                self._tracks.setdefault(key, track)

    def _interval(self, track: _Track, reading: Reading, now_ns: int) -> Interval | None:
        length_ns = now_ns - track.mono_ns
        dt_s = length_ns / NS
        unit = reading.unit
        amount: float | None
        if reading.kind is Kind.GAUGE:
            amount, flags = (track.value + reading.value) / 2 * dt_s, IntervalFlag.NONE
            unit = INTEGRAL_UNIT.get(unit, f"{unit}.s")
        else:
            amount, flags = increase(track.value, reading.value, reading.wraps_at, reading.max_rate, dt_s)
        if amount is None:
            return None
        late = self._gap_ns is not None and length_ns > self._gap_ns
        if late or track.restored or track.missed_since_ns is not None:
            flags |= IntervalFlag.GAP
        return Interval(reading.key, unit, amount, track.mono_ns, now_ns, flags)

    def _note_missed(self, seen: set[CounterKey], now_ns: int) -> None:
        if len(seen) == len(self._tracks):
            return
        for key in [key for key in self._tracks if key not in seen]:
            track = self._tracks[key]
            if track.restored:
                # Saved by a daemon with other settings or other hardware: nobody reads it any more.
                del self._tracks[key]
            elif track.missed_since_ns is None:
                track.missed_since_ns = now_ns
            elif now_ns - track.missed_since_ns >= self._forget_ns:
                del self._tracks[key]
