"""What a kWh emits and costs now and in the hours ahead, by the settings and a forecast file."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from greend.clock import NS, Instant
from greend.config import Pricing
from greend.governor.carbon import FORECAST_H
from greend.governor.conditions import Hour, Intensity

LOOK_S = 60.0
"""The forecast file is looked at this often, and read again when it has changed."""
LAST_HOUR_NS = 3600 * NS
"""How long the last row of a forecast holds."""


@dataclass
class Prices:
    """The intensity and the price in force. A file that cannot be used is said, and never stops anything."""

    settings: Pricing
    problem: str = ""
    """Why the forecast is not used; empty: it is, or there is none."""
    _ahead: tuple[Hour, ...] = ()
    _changed_ns: int = 0
    _looked: Instant | None = None

    def intensity(self, now: Instant) -> Intensity | None:
        """Return the intensity now and ahead; None: neither the settings nor a forecast say anything."""
        path = self.settings.forecast
        if path and (self._looked is None or now.seconds_since(self._looked) >= LOOK_S):
            self._looked = now
            self._look(Path(path).expanduser())
        mean, source = self.settings.intensity_g_per_kwh, self.settings.intensity_source or "settings"
        ahead = tuple(hour for hour in self._ahead if hour.end_wall_ns > now.wall_ns)
        stale = now.wall_ns - self._changed_ns > FORECAST_H * 3600 * NS
        if ahead and stale and mean is not None:
            ahead, source = (), f"{source}, as {path} is too old"
        if ahead:
            began = ahead[0].start_wall_ns <= now.wall_ns
            g_per_kwh = ahead[0].g_per_kwh if began or mean is None else mean
            return Intensity(g_per_kwh, ahead, self._changed_ns, path)
        # A mean of the year does not grow old within it.
        return Intensity(mean, (), now.wall_ns, source) if mean is not None else None

    def _look(self, path: Path) -> None:
        try:
            changed_ns = path.stat().st_mtime_ns
            if changed_ns != self._changed_ns:
                self._ahead, self._changed_ns = read_forecast(path), changed_ns
            self.problem = ""
        except (OSError, ValueError, csv.Error) as error:
            # What was read before stays: it says itself how old it is.
            self.problem = f"read the forecast {path}: {error}; what was known before is used"


def read_forecast(path: Path) -> tuple[Hour, ...]:
    """Return the hours of a CSV file `start,g_per_kwh`, each until the next one starts.

    Times are ISO 8601, without an offset in UTC. A first line that is no data is its head. Raises OSError,
    csv.Error, and ValueError for a line that is neither, or figures that are no finite amount.
    """
    rows: list[tuple[int, float]] = []
    with path.open(newline="", encoding="utf-8") as file:
        for number, words in enumerate(csv.reader(file), start=1):
            if not words or (number == 1 and not words[0][:1].isdigit()):
                continue
            try:
                start = datetime.fromisoformat(words[0].strip())
                value = float(words[1])
            except (ValueError, IndexError):
                raise ValueError(f"line {number}: {','.join(words)!r} is not `start,g_per_kwh`") from None
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"line {number}: {words[1]!r} is no emission")
            start = start if start.tzinfo is not None else start.replace(tzinfo=UTC)
            rows.append((round(start.timestamp()) * NS, value))
    rows.sort()
    ends = [start for start, _ in rows[1:]] + [start + LAST_HOUR_NS for start, _ in rows[-1:]]
    return tuple(Hour(start, end, g) for (start, g), end in zip(rows, ends, strict=True))
