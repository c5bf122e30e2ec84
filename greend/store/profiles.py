"""What the levels of a job cost, remembered for the next run of the same command on the same device."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert

from greend.store import schema

Remembered = Mapping[str, Any]
"""What `LevelProfile.remembered` returns: JSON-able, its own business."""


@dataclass(frozen=True, slots=True)
class ProfileKey:
    """Whose profile: runs of one command by one user, on one kind of device, with one set of levels."""

    signature: str
    device: str
    costs: tuple[float, ...]


def remembered(connection: Connection, key: ProfileKey) -> Remembered | None:
    """Return what the last run of that key learned; None: there was none."""
    profile = schema.level_profile.c
    text: str | None = connection.scalar(
        select(profile.remembered).where(
            profile.signature == key.signature,
            profile.device == key.device,
            profile.costs == json.dumps(key.costs),
        )
    )
    found: Remembered | None = None if text is None else json.loads(text)
    return found


def of_any_device(connection: Connection, signature: str, costs: tuple[float, ...]) -> Remembered | None:
    """Return what a run of that command learned of those levels, on whichever device; None: none did."""
    profile = schema.level_profile.c
    text: str | None = connection.scalar(
        select(profile.remembered).where(profile.signature == signature, profile.costs == json.dumps(costs))
    )
    found: Remembered | None = None if text is None else json.loads(text)
    return found


_PUT = insert(schema.level_profile)
_PUT = _PUT.on_conflict_do_update(
    index_elements=["signature", "device", "costs"], set_={"remembered": _PUT.excluded.remembered}
)


def save(connection: Connection, profiles: Mapping[ProfileKey, Remembered]) -> None:
    """Keep what was learned, in place of what was known under the same key."""
    if profiles:
        rows = [
            {
                "signature": key.signature,
                "device": key.device,
                "costs": json.dumps(key.costs),
                "remembered": json.dumps(dict(learned)),
            }
            for key, learned in profiles.items()
        ]
        connection.execute(_PUT, rows)
