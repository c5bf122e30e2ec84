"""Times as people write them, and the boundaries of their hours and days."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from greend.errors import UsageError
from greend.units import TIME_S

BY_TIME = ("minute", "hour", "day", "month")


def local_now() -> datetime:
    """Return this moment in the user's time zone, with its rules for summer time."""
    named = os.environ.get("TZ", "/etc/localtime").lstrip(":")
    zone: tzinfo | None = None  # the offset of today, where nothing better is known
    try:
        if named.startswith("/"):
            with Path(named).open("rb") as file:
                zone = ZoneInfo.from_file(file)
        else:
            zone = ZoneInfo(named) if named else UTC
    except (OSError, ValueError, ZoneInfoNotFoundError):
        pass
    return datetime.now(UTC).astimezone(zone)


def parse_when(text: str, now: datetime) -> datetime:
    """Return the instant that a text names: ISO, `14:00` (its last one), `today`, `-2h`, `7d`, `@epoch`.

    `now` carries the user's time zone. Raises UsageError.
    """
    try:
        return _parse(text, now)
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"read {text!r} as a time: write 2026-11-02 14:00, today, yesterday, -2h, 7d or @1790000000"
        ) from None


def _parse(text: str, now: datetime) -> datetime:
    word = text.strip().lower()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if word == "now":
        return now
    if word == "today":
        return midnight
    if word == "yesterday":
        return local_day(midnight, -1)
    if match := re.fullmatch(r"@(\d+(?:\.\d+)?)", word):
        return datetime.fromtimestamp(float(match[1]), now.tzinfo)
    if match := re.fullmatch(r"-?(\d+(?:\.\d+)?)\s*([a-z]+)", word):
        factor = TIME_S.get(match[2])
        if factor is not None:
            # Hours that passed, not hours of the clock on the wall.
            return datetime.fromtimestamp(now.timestamp() - float(match[1]) * factor, now.tzinfo)
    if match := re.fullmatch(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", word):
        hour, minute, second = int(match[1]), int(match[2]), int(match[3] or 0)
        at = midnight.replace(hour=hour, minute=minute, second=second)
        return at if at <= now else local_day(midnight, -1).replace(hour=hour, minute=minute, second=second)
    found = datetime.fromisoformat(text.strip())
    return found if found.tzinfo is not None else found.replace(tzinfo=now.tzinfo)


def parse_deadline(text: str, now: datetime) -> datetime:
    """Return the instant ahead that a text names: `18:00` (its next one), `2h` from now, or ISO.

    `now` carries the user's time zone. Raises UsageError, also for one that is over.
    """
    word = text.strip()
    try:
        if match := re.fullmatch(r"(\d{1,2}):(\d{2})", word):
            hour, minute = int(match[1]), int(match[2])
            midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
            at = midnight.replace(hour=hour, minute=minute)
            return at if at > now else local_day(midnight, 1).replace(hour=hour, minute=minute)
        if match := re.fullmatch(r"\+?(\d+(?:\.\d+)?)\s*([a-z]+)", word.lower()):
            return datetime.fromtimestamp(now.timestamp() + float(match[1]) * TIME_S[match[2]], now.tzinfo)
        found = _parse(word, now)
    except (KeyError, ValueError, OverflowError, OSError):
        raise UsageError(
            f"read {text!r} as a deadline: write 18:00, 2h (from now) or 2026-11-02 14:00"
        ) from None
    if found <= now:
        raise UsageError(f"read {text!r} as a deadline: that is over; write 18:00, 2h or a later day")
    return found


def local_day(midnight: datetime, days: int) -> datetime:
    """Return the user's midnight so many days on: days are the calendar's, 23 or 25 hours included."""
    return (midnight.replace(tzinfo=None) + timedelta(days=days)).replace(tzinfo=midnight.tzinfo)


def edges(since: datetime, until: datetime, by: str) -> list[int]:
    """Return the boundaries, as seconds since 1970, of all minutes, hours, days or months that touch it."""
    edge = _floor(since, by)
    found = [edge]
    while edge.timestamp() < until.timestamp():  # an hour that comes twice is in order only so
        edge = _next(edge, by)
        found.append(edge)
    return [round(e.timestamp()) for e in found]


def _floor(at: datetime, by: str) -> datetime:
    at = at.replace(second=0, microsecond=0)
    if by == "minute":
        return at
    at = at.replace(minute=0)
    if by == "hour":
        return at
    at = at.replace(hour=0)
    return at if by == "day" else at.replace(day=1)


def _next(edge: datetime, by: str) -> datetime:
    if by in ("minute", "hour"):
        # Through UTC, where no hour is skipped or doubled.
        zone: tzinfo | None = edge.tzinfo
        step = timedelta(minutes=1) if by == "minute" else timedelta(hours=1)
        return datetime.fromtimestamp(edge.timestamp() + step.total_seconds(), zone)
    if by == "day":
        return local_day(edge, 1)
    return (edge.replace(day=28) + timedelta(days=4)).replace(day=1)


def label(start_s: int, by: str, zone: tzinfo | None) -> str:
    """Return how a bucket is called in a table."""
    pattern = {"minute": "%m-%d %H:%M", "hour": "%Y-%m-%d %H:00", "day": "%Y-%m-%d", "month": "%Y-%m"}
    return datetime.fromtimestamp(start_s, zone).strftime(pattern[by])
