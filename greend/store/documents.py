"""Nouns with many optional parts as JSON text in one column: limits, bounds."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any

from greend.types import Action, Bound, Limits, Rank


def limits_text(limits: Limits) -> str:
    """Return what is limited as JSON; what is not limited is left out."""
    usual = Limits()
    return json.dumps(
        {f.name: v for f in fields(limits) if (v := getattr(limits, f.name)) != getattr(usual, f.name)}
    )


def limits_of(text: str) -> Limits:
    """Return the limits in a text of `limits_text`."""
    return Limits(**json.loads(text))


def bounds_text(bounds: tuple[Bound, ...]) -> str:
    """Return bounds as JSON."""
    return json.dumps([asdict(bound) for bound in bounds])


def bounds_of(text: str) -> tuple[Bound, ...]:
    """Return the bounds in a text of `bounds_text`."""
    return tuple(_bound(**fields) for fields in json.loads(text))


def _bound(rank: int, action: str, **rest: Any) -> Bound:
    return Bound(rank=Rank(rank), action=Action(action), **rest)
